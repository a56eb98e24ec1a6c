"""Who may call, through whatever issues, ends, reloads, restarts and clocks may do to keys."""

import math
import os
from functools import lru_cache

import msgspec
import pytest
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.controlplane.client_store import Issued
from proxy.controlplane.clients import LOOK_EVERY_S, ClientNotFound, ClientRefused, Clients
from proxy.controlplane.load import parse
from proxy.model.client_keys import NEEDED_BYTES, digest, key_hash
from proxy.model.client_settings import Client as Listed
from proxy.model.limit_settings import ClientLimits
from proxy.model.quantities import moment_text
from proxy.model.settings import Settings
from proxy.state.live import Registry

NOW_S = 1_800_000_000.0
BASE = """
upstreams: {up: {base_url: 'http://127.0.0.1:9'}}
pools: {chat: {members: [{upstream: up}]}}
routes: [{prefix: /v1, pool: chat}]
"""


def settings_of(*clients: str, pepper: str = "") -> Settings:
    listed = f"clients: [{', '.join(f'{{{client}}}' for client in clients)}]\n" if clients else ""
    return parse(BASE + listed + (f"client_pepper: {pepper}\n" if pepper else ""), {}).settings


def plain(key: str) -> str:
    return key_hash(digest(key.encode(), None), peppered=False)


class Clock:
    """Both clocks: the wall's, which may be set, and the watch's, which may not."""

    def __init__(self) -> None:
        self.now_s, self.set_by_s = 0.0, NOW_S

    def wall(self) -> float:
        return self.now_s + self.set_by_s


class Desk:
    """Clients as `main` has them: what changes is put in force at once."""

    def __init__(self, settings: Settings, issued: Issued | None = None) -> None:
        self.clock, self.registry = Clock(), Registry()
        self.settings, self.swaps = settings, 0
        self.begin(issued)

    def begin(self, issued: Issued | None) -> None:
        self.clients = Clients(self.settings, self.registry, self.clock.wall, issued)
        self.in_force = self.clients.in_force(self.settings)
        self.clients.on_change = self.swap

    def swap(self, in_force) -> None:
        self.in_force = in_force
        self.swaps += 1

    def reload(self, settings: Settings) -> None:
        self.settings = settings
        self.in_force = self.clients.in_force(settings)
        self.clients.take(settings)

    def restart(self) -> None:
        """With what was kept, as a file would bring it back."""
        kept = msgspec.json.decode(msgspec.json.encode(self.clients.issued()), type=Issued)
        self.registry = Registry()
        self.begin(kept)

    def passes(self, seconds: float) -> None:
        self.clock.now_s += seconds
        if self.clients.deadline_s <= self.clock.now_s:
            self.clients.expired(self.clock.now_s)

    def issue(self, name: str, **options) -> tuple[str, str]:
        """The key, and its fingerprint."""
        key, status = self.clients.issue(name, os.urandom(NEEDED_BYTES), "ops", **options)
        assert status.fingerprint == status.key_hash.partition(":")[2][:8]
        return key, status.fingerprint

    def who(self, key: str) -> str | None:
        """Whose key is it? `anyone` may call where nobody is asked."""
        if self.in_force is None:
            return "anyone"
        client = self.in_force.find(key.encode())
        return None if client is None else client.name


@pytest.fixture
def desk() -> Desk:
    return Desk(settings_of("name: web, key: web-key, models: [m-*], limits: {concurrent: 3}"))


# --- keys that are issued --------------------------------------------------------------------------------------------


def test_issued_key_of_a_listed_client_has_its_models_and_limits(desk):
    key, _ = desk.issue("web")
    client = desk.in_force.find(key.encode())
    assert client is desk.in_force.find(b"web-key")
    assert (client.may_use("m-1"), client.may_use("n")) == (True, False)
    assert client.live.limits.concurrent == 3


def test_issued_client_has_models_and_limits_of_its_own_across_a_restart(desk):
    key, _ = desk.issue("new", models=["n*"], limits=ClientLimits(requests_per_minute=7))
    second, _ = desk.issue("new")
    for _ in range(2):
        client = desk.in_force.find(key.encode())
        assert client is desk.in_force.find(second.encode())
        assert (client.name, client.may_use("nn"), client.may_use("m-1")) == ("new", True, False)
        assert client.live.limits.requests.per_minute == 7
        desk.restart()


@pytest.mark.parametrize("name", ["web", "new"])
def test_rules_are_given_once(desk, name):
    desk.issue("new")
    with pytest.raises(ClientRefused, match="has models and limits already"):
        desk.issue(name, models=["x"])


def test_the_first_key_of_all_cannot_be_issued_for_it_would_shut_out_everyone_else():
    desk = Desk(settings_of())
    with pytest.raises(ClientRefused, match="anyone may call without a key"):
        desk.issue("web")
    assert desk.who("") == "anyone"


def test_issued_client_that_is_listed_later_is_held_to_the_list(desk):
    key, _ = desk.issue("new", models=["n*"])
    desk.reload(settings_of("name: new, key: k, models: [m]"))
    assert desk.in_force.find(key.encode()).may_use("m")
    assert not desk.in_force.find(key.encode()).may_use("nn")
    desk.reload(settings_of("name: web, key: web-key"))
    assert desk.in_force.find(key.encode()).may_use("nn")


def test_who_is_taken_out_of_the_list_is_out_with_all_keys_and_returns_with_it(desk):
    """Or a client that was held to some models could use all of them, without limits."""
    key, _ = desk.issue("web")
    before = desk.settings
    desk.reload(settings_of("name: other, key: o"))
    desk.restart()
    assert (desk.who(key), desk.who("web-key")) == (None, None)
    assert [status.state(NOW_S) for status in desk.clients.all_keys() if status.client == "web"] == ["unlisted"]
    with pytest.raises(ClientRefused, match="is listed no more: list it, or revoke its keys"):
        desk.issue("web", models=["x"])
    desk.reload(before)
    assert desk.who(key) == "web"


def test_who_was_taken_out_and_revoked_may_begin_anew(desk):
    old, _ = desk.issue("web")
    desk.reload(settings_of("name: other, key: o"))
    desk.clients.revoke("web")
    key, _ = desk.issue("web", models=["x"])
    assert (desk.who(old), desk.who(key)) == (None, "web")
    assert desk.in_force.find(key.encode()).may_use("x")
    assert not desk.in_force.find(key.encode()).may_use("y")


def test_issued_key_that_is_listed_under_another_name_is_whose_the_list_says(desk):
    key, fingerprint = desk.issue("new")
    desk.reload(settings_of("name: web, key: web-key", f"name: other, key_hash: '{plain(key)}'"))
    assert desk.who(key) == "other"
    (status,) = [status for status in desk.clients.all_keys() if status.fingerprint == fingerprint]
    assert (status.client, status.is_listed, status.issued.by) == ("other", True, "ops")


# --- keys that end ---------------------------------------------------------------------------------------------------


def test_key_is_refused_from_the_moment_on_that_it_expires(desk):
    key, fingerprint = desk.issue("web", ends_s=NOW_S + 90)
    desk.passes(0.0)
    desk.passes(89.875)
    assert desk.who(key) == "web"
    desk.passes(0.125)
    assert (desk.who(key), desk.who("web-key")) == (None, "web")
    assert desk.swaps == 2
    desk.clients.expire("web", fingerprint, NOW_S + 100)
    assert desk.who(key) == "web"


def test_listed_client_expires_with_the_keys_that_were_issued_to_it():
    desk = Desk(settings_of(f"name: web, key: k, expires: '{moment_text(NOW_S + 10)}'"))
    key, fingerprint = desk.issue("web")
    for later in (lambda: desk.issue("web", ends_s=NOW_S + 11), lambda: desk.clients.expire("web", fingerprint, 2e9)):
        with pytest.raises(ClientRefused, match="is listed with expires: 2027-01-15T08:00:10Z: change it there"):
            later()
    desk.passes(10)
    assert (desk.who(key), desk.who("k")) == (None, None)
    with pytest.raises(ClientRefused, match="is listed with expires"):
        desk.issue("web")


def test_listed_key_can_end_before_its_client(desk):
    (status,) = desk.clients.all_keys()
    assert desk.clients.expire("web", status.fingerprint, NOW_S + 5).ends_s == NOW_S + 5
    desk.passes(5)
    assert desk.who("web-key") is None
    desk.restart()
    assert desk.who("web-key") is None


@pytest.mark.parametrize("at_s", [NOW_S, NOW_S - 1, 0.0, -1.0])
def test_moment_that_has_passed_is_refused_rather_than_taken_for_a_revocation(desk, at_s):
    (status,) = desk.clients.all_keys()
    with pytest.raises(ClientRefused, match="has passed"):
        desk.clients.expire("web", status.fingerprint, at_s)
    with pytest.raises(ClientRefused, match="has passed"):
        desk.issue("web", ends_s=at_s)
    assert desk.who("web-key") == "web"


def test_clock_that_is_set_is_noticed_within_a_minute_either_way(desk):
    key, _ = desk.issue("web", ends_s=NOW_S + 3600)
    desk.passes(0.0)
    desk.clock.set_by_s += 4000
    desk.passes(LOOK_EVERY_S)
    assert desk.who(key) is None
    desk.clock.set_by_s -= 4000
    desk.passes(LOOK_EVERY_S)
    assert desk.who(key) == "web"


def test_what_was_revoked_does_not_depend_on_the_clock(desk):
    key, fingerprint = desk.issue("web")
    desk.clients.revoke("web", fingerprint)
    desk.clock.set_by_s = -1e9
    desk.restart()
    assert desk.who(key) is None


def test_revoked_key_cannot_be_given_another_end(desk):
    _, fingerprint = desk.issue("web")
    desk.clients.revoke("web", fingerprint)
    with pytest.raises(ClientRefused, match="was revoked: issue another one"):
        desk.clients.expire("web", fingerprint, NOW_S + 5)


def test_revoking_all_keys_of_the_only_client_opens_no_door(desk):
    desk.issue("web")
    assert len(desk.clients.revoke("web")) == 2
    desk.restart()
    assert desk.in_force.by_digest == {}
    assert desk.who("web-key") is None


def test_where_keys_were_issued_an_empty_list_opens_no_door(desk):
    key, fingerprint = desk.issue("new")
    desk.reload(settings_of())
    assert (desk.who(key), desk.who("web-key"), desk.who("")) == ("new", None, None)
    desk.clients.revoke("new", fingerprint)
    desk.restart()
    assert (desk.who(key), desk.who("")) == (None, None)


@pytest.mark.parametrize("again", ["key: leaked", f"key_hash: '{plain('leaked')}'", "keys: [x, leaked]"])
@pytest.mark.parametrize(("pepper", "later"), [("", ""), ("", "p"), ("p", "p"), ("p", "q"), ("p", "")])
def test_revoked_key_is_dead_under_every_name_and_pepper(again, pepper, later):
    desk = Desk(settings_of("name: web, key: leaked", pepper=pepper))
    assert desk.who("leaked") == "web"
    desk.clients.revoke("web")
    desk.restart()
    desk.reload(settings_of(f"name: other, {again}", pepper=later))
    assert desk.who("leaked") is None


def test_an_end_that_was_moved_stays_so_whatever_the_pepper():
    desk = Desk(settings_of("name: web, key: text", pepper="p"))
    desk.clients.expire("web", digest(b"text", b"p").hex()[:8], NOW_S + 1)
    desk.reload(settings_of("name: web, key: text"))
    desk.clients.expire("web", digest(b"text", None).hex()[:8], NOW_S + 60)
    desk.reload(settings_of("name: web, key: text", pepper="p"))
    desk.passes(30)
    assert desk.who("text") == "web"
    desk.passes(31)
    assert desk.who("text") is None


@pytest.mark.parametrize(
    ("name", "fingerprint", "said"),
    [("nobody", "", "no client is called 'nobody'"), ("web", "12345678", "no key of 'web' .* there are [0-9a-f]{8}$")],
)
def test_what_is_not_there_is_told(desk, name, fingerprint, said):
    with pytest.raises(ClientNotFound, match=said):
        desk.clients.revoke(name, fingerprint)
    with pytest.raises(ClientNotFound, match=said):
        desk.clients.expire(name, fingerprint or "12345678", NOW_S + 1)


# --- what is kept live -----------------------------------------------------------------------------------------------


def test_live_state_of_who_is_gone_is_forgotten_once_nothing_is_under_way(desk):
    live = desk.registry.client("web")
    live.limits.began(1, 0.0)
    other = settings_of("name: other, key: o")
    desk.reload(other)
    assert desk.registry.client("web") is live
    live.limits.ended(1, 1, 0.0)
    desk.reload(other)
    assert list(desk.registry.clients) == ["other"]


def test_live_state_outlives_a_revocation(desk):
    live = desk.in_force.find(b"web-key").live
    desk.clients.revoke("web")
    key, _ = desk.issue("web")
    desk.reload(desk.settings)
    assert desk.in_force.find(key.encode()).live is live


def test_ten_thousand_clients_are_worked_out_once():
    hashes = (plain(f"k{number}") for number in range(10_000))
    many = tuple(Listed(name=f"c{number}", key_hash=each) for number, each in enumerate(hashes))
    desk = Desk(settings_of().model_copy(update={"clients": many}))
    made = desk.in_force
    assert desk.clients.in_force(desk.settings) is made
    record = made.find(b"k77")
    key, _ = desk.issue("c77")
    assert desk.in_force.find(key.encode()) is record
    assert desk.in_force.find(b"k9999") is made.find(b"k9999")


# --- any order -------------------------------------------------------------------------------------------------------

NAMES = ("web", "team", "new")
names = st.sampled_from(NAMES)
which = st.integers(0, 7)
SECRETS = {"web": "web-key", "team": "team-key"}


@lru_cache
def configured(web: bool, team: bool, expires: bool, pepper: str) -> Settings:
    end = f", expires: '{moment_text(NOW_S + 300)}'" if expires else ""
    listed = [f"name: {name}, key: {SECRETS[name]}{end}" for name, wanted in (("web", web), ("team", team)) if wanted]
    return settings_of(*listed, "name: always, key: always-key", pepper=pepper)


class AnyOrder(RuleBasedStateMachine):
    """It keeps its own book: by text, whose key each is, when it ends, and whether it was revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.listed, self.expires, self.pepper = {"web", "team"}, False, ""
        self.desk = Desk(configured(True, True, False, ""))
        self.issued: dict[str, tuple[str, str, str]] = {}  # client, pepper it was made with, fingerprint
        self.born_listed: dict[str, bool] = {}  # of clients with issued keys
        self.ends: dict[str, float] = {}
        self.revoked: set[str] = set()

    def keys_of(self, name: str) -> list[str]:
        own = [key for key, (client, _, _) in self.issued.items() if client == name]
        return own + ([SECRETS[name]] if name in self.listed else [])

    def fingerprint(self, key: str) -> str:
        if key in self.issued:
            return self.issued[key][2]
        pepper = self.pepper.encode() or None
        return digest(key.encode(), pepper).hex()[:8]

    def is_valid(self, key: str) -> bool:
        now_s = self.desk.clock.wall()
        client, made_with, _ = self.issued.get(key, (None, self.pepper, ""))
        if client is None:
            client = next(name for name, secret in SECRETS.items() if secret == key)
            if client not in self.listed:
                return False
        elif (self.born_listed[client] and client not in self.listed) or made_with not in ("", self.pepper):
            return False
        if client in self.listed and self.expires and now_s >= NOW_S + 300:
            return False
        return key not in self.revoked and now_s < self.ends.get(key, math.inf)

    @rule(name=names, lasts_s=st.none() | st.sampled_from((1.0, 60.0, 400.0)))
    def issue(self, name: str, lasts_s: float | None) -> None:
        now_s = self.desk.clock.wall()
        last_s = NOW_S + 300 if self.expires and name in self.listed else math.inf
        ends_s = None if lasts_s is None else now_s + lasts_s
        out = self.born_listed.get(name, False) and name not in self.listed
        out = out and not all(key in self.revoked for key in self.keys_of(name))
        if out or last_s <= now_s or (ends_s is not None and ends_s > last_s):
            with pytest.raises(ClientRefused):
                self.desk.issue(name, ends_s=ends_s)
            return
        key, fingerprint = self.desk.issue(name, ends_s=ends_s)
        if self.born_listed.get(name, True) and name not in self.listed:
            self.born_listed[name] = False
        self.born_listed.setdefault(name, name in self.listed)
        self.issued[key] = name, self.pepper, fingerprint
        if ends_s is not None:
            self.ends[key] = ends_s

    @rule(name=names, which=which, lasts_s=st.sampled_from((1.0, 30.0, 400.0)))
    def expire(self, name: str, which: int, lasts_s: float) -> None:
        keys = self.keys_of(name)
        if not keys:
            return
        key, at_s = keys[which % len(keys)], self.desk.clock.wall() + lasts_s
        last_s = NOW_S + 300 if self.expires and name in self.listed else math.inf
        if key in self.revoked or at_s > last_s or self.desk.clock.wall() >= last_s:
            with pytest.raises(ClientRefused):
                self.desk.clients.expire(name, self.fingerprint(key), at_s)
        else:
            self.desk.clients.expire(name, self.fingerprint(key), at_s)
            self.ends[key] = at_s

    @rule(name=names, which=which, everything=st.booleans())
    def revoke(self, name: str, which: int, everything: bool) -> None:
        keys = self.keys_of(name)
        if not keys:
            return
        key = keys[which % len(keys)]
        self.desk.clients.revoke(name, "" if everything else self.fingerprint(key))
        self.revoked |= set(keys) if everything else {key}

    @rule(web=st.booleans(), team=st.booleans(), expires=st.booleans(), pepper=st.sampled_from(("", "p", "q")))
    def reload(self, web: bool, team: bool, expires: bool, pepper: str) -> None:
        self.listed = {name for name, wanted in (("web", web), ("team", team)) if wanted}
        self.expires, self.pepper = expires, pepper
        self.desk.reload(configured(web, team, expires, pepper))

    @rule()
    def restart(self) -> None:
        self.desk.restart()

    @rule(seconds=st.sampled_from((0.125, 1.0, 30.0, 61.0)))
    def time_passes(self, seconds: float) -> None:
        self.desk.passes(seconds)

    @invariant()
    def keys_are_valid_as_the_book_has_it(self) -> None:
        self.desk.passes(0.0)
        for name in NAMES:
            for key in {*self.keys_of(name), SECRETS.get(name, "never")}:
                valid = key != "never" and self.is_valid(key)
                assert (self.desk.who(key) == name) == valid, (name, key, self.desk.who(key))
        assert self.desk.who("always-key") == "always"
        assert self.desk.who("wrong") is None

    @invariant()
    def what_is_shown_is_what_is_so(self) -> None:
        now_s = self.desk.clock.wall()
        shown = {key.fingerprint: key.state(now_s) for key in self.desk.clients.all_keys()}
        for name in NAMES:
            for key in self.keys_of(name):
                state = shown[self.fingerprint(key)]
                assert (state == "revoked") == (key in self.revoked)
                assert state == "active" or not self.is_valid(key)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = how(max_examples=200, stateful_step_count=30, deadline=None)
