"""HTTP to services on the node itself."""

from __future__ import annotations

import ssl
import urllib.request

#: OpenSSL's X509_V_FLAG_PARTIAL_CHAIN: it trusts the service's certificate itself. Python names it from 3.10 on.
_PARTIAL_CHAIN = 0x80000


def opener(certificate: str = "") -> urllib.request.OpenerDirector:
    """Return an opener for the node's own addresses, which ignores proxies of the environment.

    It accepts only this certificate, whatever its name. Raises OSError.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        context.verify_flags |= _PARTIAL_CHAIN
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)
