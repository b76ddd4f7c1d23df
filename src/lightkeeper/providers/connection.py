"""The way to an endpoint that asks for the device's certificate: the environment's proxy, and TLS through it.

The proxy is HTTPS_PROXY's, unless NO_PROXY names the host. TLS is of version 1.2 or later.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

from lightkeeper.errors import CertificateFilesUnusable
from lightkeeper.providers.base import DeviceCertificate


def proxy_for(host: str) -> str | None:
    """Return the address of the proxy that requests to a host go through, or None."""
    proxy = getproxies().get("https")
    return proxy if proxy and not proxy_bypass(host.strip("[]")) else None


def pool(endpoint: str, context: ssl.SSLContext) -> Any:
    """Return urllib3's maker of connections to an endpoint, which ends them when it is left. Raises its `HTTPError`."""
    import urllib3

    proxy = proxy_for(urllib3.util.parse_url(endpoint).host or "")
    if proxy is None:
        return urllib3.PoolManager(ssl_context=context, num_pools=1)
    address = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    headers = urllib3.make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
    bare = address._replace(auth=None).url
    return urllib3.ProxyManager(bare, proxy_headers=headers, ssl_context=context, num_pools=1)


def context(files: DeviceCertificate) -> ssl.SSLContext:
    """Return the TLS of a device: it trusts the one authority and shows its certificate, unless its key is in a token.

    The files are read at each call, so that renewed ones are found. Raises `CertificateFilesUnusable`.
    """
    try:
        made = ssl.create_default_context(cafile=str(files.ca_file))
        if isinstance(files.key, Path):
            made.load_cert_chain(files.certificate_file, files.key, password="")  # an encrypted key is not asked for
    except OSError as error:
        raise CertificateFilesUnusable(
            f"the device's certificate, its key or the authority's certificate cannot be used: {error}",
            ca_file=files.ca_file,
            certificate_file=files.certificate_file,
            key_file=files.key,
        ) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 began to refuse certificates without extensions that OpenSSL's own tools leave out, as an authority
    # of an operator's own may; what is verified of the chain, the name and the time stays.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return made
