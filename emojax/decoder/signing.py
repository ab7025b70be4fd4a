"""Signatures of decoders by ed25519 keys, such as `ssh-keygen -t ed25519` makes.

A signature says who has approved a decoder: the id in a manifest only says that nothing has changed
since somebody wrote it.
"""

import os
from typing import Any

from emojax.data.paths import require_file
from emojax.errors import InputError

CONTEXT = b"emojax decoder "  # so that no signature of something else fits
LARGEST = 1 << 16  # bytes of a key file
NEEDED = "pip install 'emojax[signing]'"

Path = str | os.PathLike


def sign(identity: str, key: Path) -> dict[str, str]:
    """Returns the signature of a decoder's id, and the public key that it can be verified with.

    Args:
      identity: the id.
      key: file of a private key, as OpenSSH or PEM, without passphrase.

    Raises:
      InputError: the file is no such key, or the package `cryptography` is missing.
    """
    from_file = _read(key, private=True)
    made = from_file.sign(CONTEXT + identity.encode())
    return {"key": from_file.public_key().public_bytes_raw().hex(), "signature": made.hex()}


def verify(identity: str, signature: dict[str, str] | None, key: Path, where: Any) -> None:
    """Refuses a decoder that the owner of a key has not signed.

    Args:
      identity: its id, which is right.
      signature: what `sign` returned; None: unsigned.
      key: file of the public key, as OpenSSH or PEM.
      where: the manifest, for messages.

    Raises:
      InputError: there is no signature, or one by another key; or as `sign`.
    """
    public, expected = _read(key, private=False), f"one by the owner of {key}"
    if signature is None:
        raise InputError(where, "no signature", expected)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(bytes.fromhex(signature["signature"]), CONTEXT + identity.encode())
    except InvalidSignature:
        raise InputError(where, "a signature that is another's", expected) from None


def check_key(key: Path) -> None:
    """Refuses a private key that cannot be used, before anything is written.

    Raises:
      InputError: no such file or key, or no package for it.
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
