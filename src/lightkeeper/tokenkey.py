"""Where a private key lies in a PKCS#11 token: an address as RFC 7512 has it, and the PIN that goes with it.

- The PIN is in no text of an address but `with_pin`'s, which goes to the program that signs and nowhere else.
- A PIN's file is read when the key is used, so that a changed one is found; a line's end is no part of the PIN.
- Which module speaks to the token is the system's to say (p11-kit, `PKCS11_MODULE_PATH`), not the address's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

SCHEME = "pkcs11:"
PIN_MAXIMUM_BYTES = 256

_PIN_SOURCE, _PIN_VALUE = "pin-source", "pin-value"
_OF_THE_KEY = frozenset({"token", "manufacturer", "serial", "model", "object", "id", "type", "slot-id"})
_ATTRIBUTE = re.compile(r"(?P<name>[a-z-]+)=(?P<value>(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&/?|]|%[0-9A-Fa-f]{2})*)")


@dataclass(frozen=True, slots=True)
class KeyAddress:
    """A key's address. Its text and `repr` have no PIN."""

    shown: str
    """The address without a PIN."""
    pin_file: Path | None = None
    pin_value: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the address without a PIN."""
        return self.shown

    def pin(self) -> str | None:
        """Return the PIN, or None where the address has none. Raises `OSError`, or `ValueError` for what is no PIN."""
        if self.pin_file is None:
            return self.pin_value
        with self.pin_file.open("rb") as file:
            content = file.read(PIN_MAXIMUM_BYTES + 1).rstrip(b"\r\n")
        if not content or len(content) > PIN_MAXIMUM_BYTES or b"\n" in content or b"\0" in content:
            raise ValueError(f"is not one line of up to {PIN_MAXIMUM_BYTES} bytes")
        return content.decode()

    def with_pin(self, pin: str | None) -> str:
        """Return the address for who signs."""
        return self.shown if pin is None else f"{self.shown};{_PIN_VALUE}={quote(pin, safe='')}"

    def written(self) -> str:
        """Return the address as a configuration has it, the PIN in it where it was."""
        if self.pin_file is not None:
            return f"{self.shown}?{_PIN_SOURCE}=file:{quote(str(self.pin_file))}"
        return self.with_pin(self.pin_value)


def is_address(text: str) -> bool:
    """Return whether a text means a key in a token, well formed or not."""
    return text.strip().lower().startswith(SCHEME)


def parse(text: str) -> KeyAddress:
    """Return the address that a text is. Raises `ValueError` with words that repeat nothing of it but names."""
    path, _, query = text.strip()[len(SCHEME) :].partition("?")
    given = _attributes([*path.split(";"), *(query.split("&") if query else [])])
    for name in given:
        if name in {"module-path", "module-name"}:
            raise ValueError(f"has {name}: set PKCS11_MODULE_PATH in the agent's environment, or p11-kit, instead")
        if name not in _OF_THE_KEY | {_PIN_SOURCE, _PIN_VALUE}:
            raise ValueError("has an attribute that addresses no key of a token")
    if given.setdefault("type", "private") != "private":
        raise ValueError("names something else than a private key: its type must be private")
    if not given.get("object") and not given.get("id"):
        raise ValueError("says neither object nor id, so any key could be meant")
    if _PIN_SOURCE in given and _PIN_VALUE in given:
        raise ValueError("has both pin-source and pin-value")
    key = ";".join(f"{name}={value}" for name, value in given.items() if name in _OF_THE_KEY)
    pin = unquote(given[_PIN_VALUE], errors="strict") if _PIN_VALUE in given else None
    if pin is not None and not (pin.isprintable() and 0 < len(pin.encode()) <= PIN_MAXIMUM_BYTES):
        raise ValueError(f"has a pin-value that is not 1 to {PIN_MAXIMUM_BYTES} printable bytes")
    return KeyAddress(f"{SCHEME}{key}", _pin_file(given.get(_PIN_SOURCE)), pin)


def _attributes(pieces: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for piece in pieces:
        found = _ATTRIBUTE.fullmatch(piece)
        if found is None:
            raise ValueError(
                "is no PKCS#11 address: write pkcs11:token=…;object=…?pin-source=file:/…, with %XX for others"
            )
        if found["name"] in given:
            raise ValueError(f"has {found['name']} twice" if found["name"] in _OF_THE_KEY else "has an attribute twice")
        given[found["name"]] = found["value"]
    return given


def _pin_file(source: str | None) -> Path | None:
    if source is None:
        return None
    if source.startswith("|"):
        raise ValueError("has a pin-source that is a command: only a file is read")
    name = unquote(re.sub(r"^file:(//(?=/))?", "", source), errors="strict")
    if not name.startswith("/") or not name.isprintable():
        raise ValueError("has a pin-source that is no absolute path: write pin-source=file:/etc/lightkeeper/pin")
    return Path(name)
