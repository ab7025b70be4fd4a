"""Signatures of decoders by ed25519 keys, such as those of `ssh-keygen -t ed25519`.

A signature shows who approved a decoder. The id in a manifest only shows that nothing has changed
since the manifest was written.
"""

import os
from typing import Any

from emojax.data.paths import require_file
from emojax.errors import InputError

CONTEXT = b"emojax decoder "  # keeps signatures made for other purposes from matching
LARGEST = 1 << 16  # bytes of a key file
NEEDED = "pip install 'emojax[signing]'"

Path = str | os.PathLike


def sign(identity: str, key: Path) -> dict[str, str]:
    """Returns the signature of a decoder's id and the public key that verifies it.

    Args:
      identity: the id.
      key: file of a private key (OpenSSH or PEM) without a passphrase.

    Raises:
      InputError: the file does not hold such a key, or the package `cryptography` is missing.
    """
    from_file = _read(key, private=True)
    made = from_file.sign(CONTEXT + identity.encode())
    return {"key": from_file.public_key().public_bytes_raw().hex(), "signature": made.hex()}


def verify(identity: str, signature: dict[str, str] | None, key: Path, where: Any) -> None:
    """Refuses a decoder that the owner of a key has not signed.

    Args:
      identity: id of the decoder, already checked.
      signature: result of `sign`; None for an unsigned decoder.
      key: file of the public key (OpenSSH or PEM).
      where: the manifest, for messages.

    Raises:
      InputError: the signature is missing or made with another key; or as `sign`.
    """
    public, expected = _read(key, private=False), f"one by the owner of {key}"
    if signature is None:
        raise InputError(where, "no signature", expected)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(bytes.fromhex(signature["signature"]), CONTEXT + identity.encode())
    except InvalidSignature:
        raise InputError(where, "a signature by another key", expected) from None


def check_key(key: Path) -> None:
    """Refuses a private key that cannot be used, before anything is written.

    Raises:
      InputError: the file does not hold such a key, or the package `cryptography` is missing.
    """
    _read(key, private=True)


def _read(path: Path, private: bool) -> Any:
    """Returns the key in a file."""
    try:
        from cryptography.hazmat.primitives import serialization as formats
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise InputError("signatures", "no package cryptography", NEEDED) from None
    kind = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    expected = f"a {'private' if private else 'public'} ed25519 key (ssh-keygen -t ed25519)"
    if require_file(path, expected).st_size > LARGEST:
        raise InputError(path, "a file that is too large for a key", expected)
    with open(path, "rb") as file:
        content = file.read()
    try:
        if private and content.startswith(b"-----BEGIN OPENSSH"):
            key = formats.load_ssh_private_key(content, None)
        elif private:
            key = formats.load_pem_private_key(content, None)
        elif content.startswith(b"ssh-"):
            key = formats.load_ssh_public_key(content)
        else:
            key = formats.load_pem_public_key(content)
    except Exception as error:  # cryptography raises many types on other files
        raise InputError(path, f"no key that can be read ({error})", expected) from None
    if not isinstance(key, kind):
        raise InputError(path, f"a key of another kind ({type(key).__name__})", expected)
    return key
