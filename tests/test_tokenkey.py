"""Addresses of keys in tokens: what is understood, what is refused, and that no PIN is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeeper import tokenkey


@pytest.mark.parametrize(
    ("text", "shown", "pin_file", "pin_value"),
    [
        ("pkcs11:token=a;object=k", "pkcs11:token=a;object=k;type=private", None, None),
        ("PKCS11:id=%01%ff?pin-source=file:/etc/pin", "pkcs11:id=%01%ff;type=private", "/etc/pin", None),
        ("pkcs11:object=k;type=private?pin-source=/a%20b", "pkcs11:object=k;type=private", "/a b", None),
        ("pkcs11:object=k?pin-source=file:///etc/pin", "pkcs11:object=k;type=private", "/etc/pin", None),
        ("pkcs11:object=k;pin-value=1%3b2", "pkcs11:object=k;type=private", None, "1;2"),
    ],
)
def test_an_address_is_read_and_shown_without_its_pin(
    text: str, shown: str, pin_file: str | None, pin_value: str | None
) -> None:
    """The PIN may stand where RFC 7512 has it, or where older programs had it."""
    address = tokenkey.parse(text)
    assert (str(address), address.pin_value) == (shown, pin_value)
    assert address.pin_file == (pin_file and Path(pin_file))
    assert tokenkey.parse(address.written()) == address
    assert pin_value is None or pin_value not in repr(address) + str(address)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pkcs11:", "no PKCS#11 address"),
        ("pkcs11:secret", "no PKCS#11 address"),
        ("pkcs11:object=secret key", "no PKCS#11 address"),
        ("pkcs11:object=%2", "no PKCS#11 address"),
        ('pkcs11:object=k"', "no PKCS#11 address"),
        ("pkcs11:token=secret", "neither object nor id"),
        ("pkcs11:object=k;object=secret", "has object twice"),
        ("pkcs11:object=k;pin-value=secret?pin-value=secret", "has an attribute twice"),
        ("pkcs11:object=k;type=cert", "must be private"),
        ("pkcs11:object=k;x-secret=1", "addresses no key"),
        ("pkcs11:object=k?module-path=/secret.so", "module-path: set PKCS11_MODULE_PATH"),
        ("pkcs11:object=k?pin-value=secret&pin-source=/secret", "both pin-source and pin-value"),
        ("pkcs11:object=k?pin-source=|secret", "is a command"),
        ("pkcs11:object=k?pin-source=file:secret", "no absolute path"),
        ("pkcs11:object=k?pin-value=", "1 to 256"),
        ("pkcs11:object=k?pin-value=%0asecret", "1 to 256"),
        ("pkcs11:object=k?pin-value=%ff", "utf-8"),
    ],
)
def test_what_is_no_address_of_a_private_key_is_refused_without_repeating_it(text: str, why: str) -> None:
    """Somebody may have put the PIN in the wrong place."""
    with pytest.raises(ValueError, match=r"^(has|is|names|says|'utf-8')") as found:
        tokenkey.parse(text)
    assert why in str(found.value)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("content", ["", "\n", "1\n2", "1" * 257, "1\0"])
def test_a_pins_file_is_one_line(tmp_path: Path, content: str) -> None:
    """Whose end is no part of the PIN."""
    file = tmp_path / "pin"
    address = tokenkey.parse(f"pkcs11:object=k?pin-source={file}")
    file.write_text("12 34\r\n")
    assert address.pin() == "12 34"
    file.write_text(content)
    with pytest.raises(ValueError, match="one line"):
        address.pin()
