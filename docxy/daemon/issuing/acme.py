"""Certificates of an ACME server (RFC 8555), with the HTTP-01 challenge, by certbot's library.

The laws: *the account's key and the certificate's key never leave this machine*; a challenge is answered
only while its order runs; every failure is an IssueError that says what the operator can do.

The library blocks, and is an extra: only `docxy.front` imports this module, where ACME is configured.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from acme import challenges, client, crypto_util, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWKEC
from requests.exceptions import RequestException, SSLError
from zope.interface import implementer

import docxy
from docxy.daemon.certificates import KeyPair
from docxy.daemon.issuing.issuer import IIssuer, IssueError, RenewalPlan, by_life
from docxy.daemon.issuing.state import StateDirectory
from docxy.errors import delay
from docxy.settings.model import Acme

NETWORK_TIMEOUT = 30
"""Seconds for each answer of the server."""
LARGEST = 1 << 20
"""Bytes of an answer; a chain has some thousands."""
ORDER_TIME = 120.0
"""Seconds for validation, and again for the certificate."""
SOONEST_LOOK, LATEST_LOOK = 600.0, 24 * 3600.0
"""Seconds between two questions about renewal (RFC 9773)."""
USUAL_LOOK = 6 * 3600.0
LATEST_SHARE = 0.9
"""Of a certificate's life, after which it is renewed although its server names a later time."""
SHORT_LIVED = "shortlived"
"""The only profile in which Let's Encrypt issues for IP addresses."""


@implementer(IIssuer)
class AcmeIssuer:
    """Issues to some names; one order at a time."""

    def __init__(self, settings: Acme, names: Sequence[str], state: StateDirectory) -> None:
        self.source = settings.directory
        self._settings = settings
        self._names = names
        self._state = state
        self._asked = 0.0
        """Seconds that the server's last refusal asked to wait for."""

    def issue(self) -> bytes:
        self._asked = 0.0
        self._check_ca()
        try:
            return self._issue()
        except errors.ValidationError as error:
            raise IssueError(_refused(error), self._asked) from None
        except messages.Error as error:
            raise IssueError(f"{self.source} refuses: {_problem(error)}", self._asked) from None
        except errors.IssuanceError as error:
            raise IssueError(f"{self.source} did not issue it: {_problem(error.error)}", self._asked) from None
        except errors.TimeoutError:
            raise IssueError(f"{self.source} did not decide within {ORDER_TIME:.0f} s", self._asked) from None
        except SSLError as error:
            hint = "; name its CA with --acme-ca-file" if self._settings.ca_file is None else ""
            raise IssueError(f"{self.source} cannot be trusted: {_line(_cause(error))}{hint}") from None
        except RequestException as error:
            why = _line(_cause(error))
            hint = "check that this machine reaches it (HTTPS_PROXY is heeded)"
            raise IssueError(f"{self.source} cannot be reached: {why}; {hint}") from None
        except (errors.Error, JoseError, ValueError, KeyError) as error:
            raise IssueError(f"{self.source} does not answer as an ACME server: {_line(error)}", self._asked) from None
        finally:
            self._state.withdraw()

    def plan(self, pem: bytes, pair: KeyPair, now: float) -> RenewalPlan:
        """By ACME Renewal Information (RFC 9773), where the server has it and answers."""
        try:
            told, look = self._client(None).renewal_time(pem)
        except Exception:  # whatever it is: the certificate's life says enough
            return RenewalPlan(by_life(pair), now + USUAL_LOOK)
        due = by_life(pair) if told is None else told.timestamp()
        # Whatever the server wants, some time is left to try again before the certificate ends.
        return RenewalPlan(
            min(due, by_life(pair, LATEST_SHARE)), now + min(max(SOONEST_LOOK, look.timestamp() - now), LATEST_LOOK)
        )

    def _check_ca(self) -> None:
        """Raises IssueError for a CA file that cannot be used, of which the library's words say little."""
        if self._settings.ca_file is not None:
            try:
                ssl.create_default_context(cafile=self._settings.ca_file)
            except OSError as error:  # an SSLError is one
                why = error.strerror or _line(error)
                raise IssueError(f"the CAs in {self._settings.ca_file} cannot be used: {why}") from None

    def _client(self, key: JWKEC | None) -> client.ClientV2:
        verify: Any = True if self._settings.ca_file is None else self._settings.ca_file
        network = client.ClientNetwork(
            key, alg=ES256, verify_ssl=verify, user_agent=f"docxy/{docxy.__version__}", timeout=NETWORK_TIMEOUT
        )
        network.session.hooks["response"].append(self._answered)
        return client.ClientV2(client.ClientV2.get_directory(self.source, network), network)

    def _answered(self, response: Any, *_: Any, **__: Any) -> None:
        response.raw = _WholeBody(response.raw)
        if response.status_code in (429, 503):
            self._asked = delay(response.headers.get("Retry-After")) or 0.0

    def _issue(self) -> bytes:
        account = JWKEC(key=self._account_key())
        acme = self._client(account)
        self._log_in(acme, account)
        key = _pem(ec.generate_private_key(ec.SECP256R1()))
        hosts = [name for name in self._names if not _is_address(name)]
        addresses = [ipaddress.ip_address(name) for name in self._names if _is_address(name)]
        csr = crypto_util.make_csr(key, hosts or None, ipaddrs=addresses or None)
        order = acme.new_order(csr, self._profile(bool(addresses)))
        pending = [each for each in order.authorizations if each.body.status != messages.STATUS_VALID]
        for authorization in pending:
            challenge = _http_01(authorization)
            self._state.offer(challenge.chall.encode("token"), challenge.validation(account).encode("ascii"))
        for authorization in pending:
            challenge = _http_01(authorization)
            acme.answer_challenge(challenge, challenge.response(account))
        order = acme.poll_authorizations(order, _deadline())
        order = acme.finalize_order(order, _deadline())
        return order.fullchain_pem.encode("ascii") + key

    def _profile(self, has_address: bool) -> str | None:
        if self._settings.profile is not None or not has_address:
            return self._settings.profile
        return SHORT_LIVED

    def _log_in(self, acme: client.ClientV2, key: JWKEC) -> None:
        """Make the account, or find the one that this key has."""
        more: dict[str, Any] = {}
        binding = self._settings.binding
        if binding is not None:
            more["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                account_public_key=key.public_key(), kid=binding.key_id, hmac_key=binding.key, directory=acme.directory
            )
        elif acme.external_account_required():
            raise IssueError(
                f"{self.source} takes only accounts that it knows: set --acme-eab-key-id and --acme-eab-key-file to "
                f"what its operator gave you"
            )
        wanted = messages.NewRegistration.from_data(email=self._settings.email, terms_of_service_agreed=True, **more)
        try:
            acme.new_account(wanted)
        except errors.ConflictError as known:
            acme.net.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())

    def _account_key(self) -> ec.EllipticCurvePrivateKey:
        path = self._state.account(self.source)
        pem = self._state.read(path)
        if pem is None:
            pem = _pem(ec.generate_private_key(ec.SECP256R1()))
            self._state.write(path, pem)
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            raise IssueError(f"the account's key {path} cannot be used: {_line(error)}; move it away") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IssueError(f"the account's key {path} is no EC key; move it away")
        return key


class _WholeBody:
    """The whole body of an answer."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._read = 0

    def read(self, size: int | None = None) -> bytes:
        data: bytes = self._raw.read(size, decode_content=True)
        self._read += len(data)
        if self._read > LARGEST:
            raise RequestException(f"an answer is longer than {LARGEST} bytes")
        return data

    def __getattr__(self, name: str) -> Any:
        if name == "stream":  # without it requests reads
            raise AttributeError(name)
        return getattr(self._raw, name)


def _http_01(authorization: messages.AuthorizationResource) -> Any:
    """The challenge that docxy can meet.  Raises IssueError."""
    for each in authorization.body.challenges:
        if isinstance(each.chall, challenges.HTTP01):
            return each
    name = authorization.body.identifier.value
    raise IssueError(f"the ACME server offers no HTTP-01 challenge for {name}, and docxy can meet no other")


def _refused(error: errors.ValidationError) -> str:
    """What the server could not see, and what to look at."""
    words = []
    for authorization in error.failed_authzrs:
        name = authorization.body.identifier.value
        problems = [each.error for each in authorization.body.challenges if each.error is not None]
        why = "; ".join(_problem(problem) for problem in problems) or "no reason given"
        words.append(
            f"{name} was not validated: {why}; check that DNS leads {name} to this machine and that its port 80 "
            f"leads to --http-port"
        )
    return "; ".join(words)


def _problem(error: messages.Error) -> str:
    """An RFC 7807 problem on one line."""
    parts = [part for part in (error.code, error.detail) if part]
    parts += [f"{sub.identifier.value}: {sub.detail}" for sub in error.subproblems or () if sub.identifier is not None]
    return _line(": ".join(parts) or error.title or "no reason given")


def _cause(error: BaseException) -> object:
    """What is at the bottom of an error of requests, whose own words repeat the URL at each level."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return _cause(inner) if isinstance(inner, BaseException) else error


def _line(text: object) -> str:
    """The start of a message, on one printable line."""
    words = " ".join(str(text).split())
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    return words if len(words) <= 300 else words[:297] + "..."


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _deadline() -> datetime:
    # The library compares it with its own naive clock.
    return datetime.now() + timedelta(seconds=ORDER_TIME)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
