"""Whether a bucket ends uploads that were left incomplete, as S3 says it.  Blocks: it is a command's.

obstore does not ask for a bucket's settings, so the one request is signed here (AWS Signature Version 4).
The law: nothing is changed; what cannot be known is None.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from datetime import datetime, timezone
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

from docxy.settings.model import ArchiveSettings

PATIENCE = 10.0
"""Seconds."""
_MOST = 256 * 1024
"""Bytes of an answer that are read."""
_NOTHING = hashlib.sha256(b"").hexdigest()
_RULE = re.compile(rb"<Rule>.*?</Rule>", re.DOTALL)


def ends_incomplete(settings: ArchiveSettings) -> bool | None:
    """Whether a rule that is on aborts incomplete uploads; None: the store does not say."""
    url = urlsplit(settings.url)
    if url.scheme != "s3" or settings.access_key is None or settings.secret is None:
        return None
    region = settings.region or "us-east-1"
    base = urlsplit(settings.endpoint or f"https://s3.{region}.amazonaws.com")
    path = f"{base.path}/{url.netloc}"
    signed = _signed(base.netloc, path, region, settings.access_key, settings.secret, datetime.now(timezone.utc))
    request = Request(f"{base.scheme}://{base.netloc}{path}?lifecycle=", headers=signed)
    context = ssl.create_default_context()
    if settings.authorities is not None:
        context.load_verify_locations(cadata=settings.authorities.decode("ascii"))
    try:
        with build_opener(HTTPSHandler(context=context)).open(request, timeout=PATIENCE) as answer:
            rules = _RULE.findall(answer.read(_MOST))
    except HTTPError as error:
        with error:
            return False if b"NoSuchLifecycleConfiguration" in error.read(_MOST) else None
    except (OSError, HTTPException):
        return None
    return any(b"<AbortIncompleteMultipartUpload>" in rule and b"<Status>Enabled<" in rule for rule in rules)


def _signed(host: str, path: str, region: str, name: str, secret: bytes, now: datetime) -> dict[str, str]:
    """The headers of `GET path?lifecycle=`."""
    when, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    scope = f"{day}/{region}/s3/aws4_request"
    names = "host;x-amz-content-sha256;x-amz-date"
    headers = f"host:{host}\nx-amz-content-sha256:{_NOTHING}\nx-amz-date:{when}\n"
    canonical = f"GET\n{path}\nlifecycle=\n{headers}\n{names}\n{_NOTHING}"
    text = f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + secret
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={name}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {"Authorization": credential, "x-amz-date": when, "x-amz-content-sha256": _NOTHING}
