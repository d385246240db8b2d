"""The settings, read again at a SIGHUP by the one process that tells all others.

The law: *settings that are wrong change nothing*: those in force stay, and the log says what a start would end with.
Settings that can change at run time come into force all at once; the log names those that wait for a new docxy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.logger import Logger

from docxy.daemon.policy import PolicyReload
from docxy.daemon.reloads import Reloaded
from docxy.daemon.webhooks import trust_of as trust_of_receiver
from docxy.settings.changeable import taken_up, way, with_access
from docxy.settings.differences import differences
from docxy.settings.load import load_access
from docxy.settings.model import Config, ConfigError
from docxy.settings.policy import Policy
from docxy.upstream.agent import trust_of

_log = Logger()


@frozen
class Started:
    """What this process was started with."""

    config: Config
    read: Callable[[], Config]
    """What it would be started with now.  Raises ConfigError."""


@frozen
class Changing:
    """Puts in force what can be."""

    started: Started
    running: Callable[[], Config]
    """What is in force."""
    put: Callable[[Config], object]
    """Puts another in force everywhere."""

    def reload(self) -> Sequence[Reloaded]:
        """Read the settings, and put in force what can be."""
        try:
            read = self.started.read()
            running = self.running()
            after = taken_up(running, read)
            _check(running, after)
        except ConfigError as error:
            if str(error).endswith("Permission denied"):
                # What root read at the start, this user may not.
                return self._access_alone(str(error))
            return _refused(error)
        now = self._put(running, after)
        later = ", ".join(differences(taken_up(self.started.config, read), read))
        if later:
            _log.warn("not in force yet, docxy upgrade does that: {names}", names=later)
        says = [f"in force now: {now}"] if now else []
        says += [f"not in force yet, docxy upgrade does that: {later}"] if later else []
        return (Reloaded("settings", True, "; ".join(says) or "as before"),)

    def _access_alone(self, why: str) -> Sequence[Reloaded]:
        """Put in force who may come in, which no other file says; `why`: the rest cannot be read."""
        running = self.running()
        assert running.file is not None
        try:
            after = with_access(running, load_access(running.file))
        except ConfigError as error:
            return _refused(error)
        now = self._put(running, after)
        says = [f"in force now: {now}"] if now else []
        says.append(f"those of [[upstreams]] and all others cannot be compared with those of the start: {why}")
        return (Reloaded("settings", True, "; ".join(says)),)

    def _put(self, running: Config, after: Config) -> str:
        """Put it in force where it is something else; the names of what is."""
        if after == running:
            return ""
        now = ", ".join(differences(running, after))
        self.put(after)
        _log.info("in force now: {names}", names=now)
        return now


def _refused(error: ConfigError) -> Sequence[Reloaded]:
    _log.error("docxy would not start with the settings as they are now: {error}", error=error)
    return (Reloaded("settings", False, str(error)),)


def reloading(
    started: Started, running: Callable[[], Config], put: Callable[[Config], object], reactor: Any
) -> PolicyReload:
    """What reads the configuration again.  `running`: what is in force; `put`: puts another in force everywhere."""

    def swap(policy: Policy) -> None:
        if policy != running().policy:
            put(evolve(running(), policy=policy))

    config = running()
    rest = Changing(started, running, put).reload
    return PolicyReload(config.file, config.registries, swap, rest, reactor)


def _check(running: Config, after: Config) -> None:
    """That every upstream and every receiver can be reached in its new way.  Raises ConfigError."""
    for number, webhook in enumerate(after.webhooks, 1):
        if webhook not in running.webhooks:
            try:
                trust_of_receiver(webhook)
            except ValueError as error:
                raise ConfigError(f"[[webhook]] {number}: ca_file {error}") from None
    for before, upstream in zip(running.upstreams, after.upstreams, strict=True):
        if way(before) != way(upstream):
            try:
                trust_of(upstream)
            except ValueError as error:
                raise ConfigError(f"upstreams.{upstream.name}: ca_file or client_cert {error}") from None
