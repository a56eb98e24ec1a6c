// Numbers as people read them. A dash is what is not known.

export const DASH = "–";
const THIN = "\u202f"; // a narrow space that does not break, between a number and its unit

export function rate(perSecond) {
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toFixed(1);
}

export function percent(value, digits = 1) {
  return value == null ? DASH : `${+value.toFixed(digits)}${THIN}%`;
}

export function failed(value) {
  return value ? `${value.toFixed(1)}${THIN}%` : `0${THIN}%`;
}

export function ms(value) {
  if (value == null) return DASH;
  return value >= 10000 ? `${(value / 1000).toFixed(1)}${THIN}s` : `${value.toFixed(0)}`;
}

export function withUnit(milliseconds) {
  if (milliseconds == null) return DASH;
  return milliseconds >= 10000 ? `${(milliseconds / 1000).toFixed(1)}${THIN}s` : `${milliseconds.toFixed(0)}${THIN}ms`;
}

export function evidence(value) {
  if (value == null) return DASH;
  if (value >= 1e6) return value.toExponential(1).replace("e+", "e");
  return value >= 1000 ? value.toFixed(0) : value >= 100 ? value.toFixed(0) : value.toPrecision(3).replace(/\.?0+$/, "");
}

export function lasted(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}${THIN}s`;
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days}${THIN}d ${hours}${THIN}h`;
  return hours ? `${hours}${THIN}h ${minutes}${THIN}min` : `${minutes}${THIN}min ${whole % 60}${THIN}s`;
}

export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString([], { hour12: false });
}

export const words = (name) => name.replaceAll("_", " ");
