"""Asking what runs on the node itself."""

from __future__ import annotations

import ssl
import urllib.request

#: OpenSSL's X509_V_FLAG_PARTIAL_CHAIN: the service's certificate is trusted by itself. Python names it from 3.10 on.
_PARTIAL_CHAIN = 0x80000


def opener(certificate: str = "") -> urllib.request.OpenerDirector:
    """Return what opens an address of the node itself, whatever proxy its environment names.

    There the service has this certificate, and no other, whatever name that is for. Raises OSError.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        context.verify_flags |= _PARTIAL_CHAIN
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)
