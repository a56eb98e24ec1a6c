// Axes of the plots: where a value lies, and which values are written beside it.

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

export function linear(low, high, from, to) {
  const span = high - low || 1;
  return (value) => from + ((to - from) * (value - low)) / span;
}

// Evidence grows and falls by factors. Below `low` it is drawn at `low`.
export function logarithmic(low, high, from, to) {
  const scale = linear(Math.log(low), Math.log(high), from, to);
  return (value) => scale(Math.log(Math.min(high, Math.max(low, value))));
}

export function powers(low, high) {
  const found = [];
  for (let power = 10 ** Math.ceil(Math.log10(low)); power <= high; power *= 10) found.push(power);
  return found.length > 5 ? found.filter((_, at) => at % Math.ceil(found.length / 5) === 0) : found;
}

export function round(high) {
  const step = 10 ** Math.floor(Math.log10(high || 1));
  return [1, 2, 5, 10].map((factor) => factor * step).find((value) => value >= high) ?? high;
}

// Moments in milliseconds, at most `most` of them, on whole steps of the reader's clock.
export function moments(from, to, most) {
  const step = 1000 * (STEPS_S.find((each) => (to - from) / 1000 / each <= most) ?? STEPS_S.at(-1));
  const zone = new Date(from).getTimezoneOffset() * 60000;
  const found = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) found.push(at);
  return found;
}

// The corners of a line through [x, y] points; null is a gap. `stepped`: it holds until the next point.
export function path(points, stepped = false) {
  let drawn = "";
  let before = null;
  for (const [x, y] of points) {
    if (y === null) {
      before = null;
      continue;
    }
    const place = `${x.toFixed(1)} ${y.toFixed(1)}`;
    if (before === null) drawn += `M${place}`;
    else drawn += stepped ? `L${x.toFixed(1)} ${before.toFixed(1)}L${place}` : `L${place}`;
    before = y;
  }
  return drawn;
}
