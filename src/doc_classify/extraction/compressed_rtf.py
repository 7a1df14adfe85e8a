"""The packed rich text of Outlook messages ([MS-OXRTFCP])."""

from __future__ import annotations

import struct

from doc_classify.errors import DamagedError

_PACKED = b"LZFu"
_PLAIN = b"MELA"
_RING = 4096
# What every message begins with stands in the dictionary from the start ([MS-OXRTFCP] 2.1.2.1).
_KNOWN = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)


def unpack_rtf(data: bytes, limit: int) -> bytes:
    """The RTF code in ``data``, at most ``limit`` bytes of it; a cut end is left out.

    Raises:
        DamagedError: not packed rich text.
    """
    if len(data) < 16 or data[8:12] not in (_PACKED, _PLAIN):
        raise DamagedError("the rich text of the message is damaged")
    size = min(struct.unpack_from("<I", data, 4)[0], limit)
    if data[8:12] == _PLAIN:
        return data[16 : 16 + size]
    ring = bytearray(_KNOWN.ljust(_RING, b" "))
    write = len(_KNOWN)
    out = bytearray()
    at = 16
    while at < len(data) and len(out) < size:
        flags = data[at]
        at += 1
        for bit in range(8):
            if flags >> bit & 1:
                if at + 2 > len(data):
                    return bytes(out)
                reference = data[at] << 8 | data[at + 1]
                at += 2
                read, count = reference >> 4, (reference & 0xF) + 2
                if read == write:  # the end of the text
                    return bytes(out)
                for _ in range(count):
                    ring[write] = ring[read]
                    out.append(ring[read])
                    read, write = (read + 1) % _RING, (write + 1) % _RING
            elif at < len(data):
                ring[write] = data[at]
                out.append(data[at])
                at += 1
                write = (write + 1) % _RING
            else:
                return bytes(out)
    return bytes(out[:size])
