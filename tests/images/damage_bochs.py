# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Bochs half of damage.py: every header field, and the catalog's entries."""
from bochs import HEADER, V1

def field(base, name, value):
    offset, fmt = HEADER[name]
    return {'base': base, 'patches': [(offset, fmt, value)]}


# (field, value, expected, hint); QEMU 10.0 takes any header and bitmap size
FIELDS = [
    ('magic', b'Bochs Virtual HD Imagf', 'refuse', 'bochs'),
    ('type', b'Undolog', 'refuse', 'bochs|type'),
    ('subtype', b'Shrinking', 'refuse', 'bochs|subtype'),
    ('version', 0, 'refuse', 'bochs|version'),
    ('version', 0x00030000, 'refuse', 'bochs|version'),
    ('version', 0xffffffff, 'refuse', 'bochs|version'),
    ('catalog_size', 0, 'refuse', 'catalog'),
    ('catalog_size', 1, 'refuse', 'catalog'),
    ('catalog_size', 31, 'refuse', 'catalog'),
    ('catalog_size', 1 << 30, 'refuse', 'catalog'),
    ('catalog_size', 0x3fffff80, 'refuse', 'catalog'),
    ('catalog_size', 0xffffffff, 'refuse', 'catalog'),
    ('extent_size', 0, 'refuse', 'extent'),
    ('extent_size', 511, 'refuse', 'extent'),
    ('extent_size', 1536, 'refuse', 'extent'),
    ('extent_size', 1 << 31, 'refuse', 'extent'),
    ('extent_size', 0xffffffff, 'refuse', 'extent'),
    ('bitmap_size', 0, 'refuse', 'bitmap'),
    ('bitmap_size', 1 << 31, 'refuse', 'bitmap'),
    ('bitmap_size', 0xffffffff, 'refuse', 'bitmap'),
    ('header_size', 0, 'refuse', 'header'),
    ('header_size', 0x7fffffff, 'refuse', 'header'),
    ('header_size', 0xffffff00, 'refuse', 'header'),
    ('header_size', 0xffffffff, 'refuse', 'header'),
]
SIZES = [(1 << 62, 'disk|size|catalog'), (1 << 63, 'disk|size|catalog'),
         ((1 << 64) - 1, 'disk|size|catalog'), (33 * 1024 + 512, 'disk|size|catalog')]
ENTRIES = [('beyond-end', 0x100), ('wraps-32-bits', 0x80000000), ('largest', 0xfffffffe)]
# Lengths of the file: nothing, within the magic, within the header, before the catalog.
LENGTHS = [(0, 'bochs'), (20, 'bochs'), (80, 'bochs|header|short'),
           (511, 'bochs|header|short|catalog', 'ok'), (512, 'catalog|short', 'ok')]


def rows(load):
    for version in (1, 2):
        base = 'bochs-v%d.img' % version
        data = load(base)
        assert (data[64:68] == V1.to_bytes(4, 'little')) == (version == 1)
        yield from fields(version, base)
        yield from entries(version, base, data)


def row(name, expect, hint, qemu=None, truncate=None, **more):
    return dict(name=name, expect=expect, hint=hint, qemu=qemu, truncate=truncate, **more)


def fields(version, base):
    stem = 'bochs-v%d' % version
    for name, value, expect, hint in FIELDS:
        text = value.decode().split()[-1].lower() if isinstance(value, bytes) else '%x' % value
        qemu = 'ok' if name in ('bitmap_size', 'header_size') else None
        yield row('%s-%s-%s' % (stem, name.replace('_', '-'), text), expect, hint, qemu,
                  **field(base, name, value))
    for value, hint in SIZES:
        yield row('%s-disk-size-%x' % (stem, value), 'refuse', hint,
                  **field(base, 'disk_size_v%d' % version, value))
    for length, hint, *qemu in LENGTHS:
        yield row('%s-length-%d' % (stem, length), 'refuse', hint, *qemu, truncate=length,
                  base=base, patches=[])


def entries(version, base, data):
    """Catalog entries: the first extent of the disk is the second in the file."""
    assert int.from_bytes(data[512:516], 'little') == 1
    for name, value in ENTRIES:
        yield row('bochs-v%d-entry-%s' % (version, name), 'eio', None, 'ok', base=base,
                  patches=[(512, '<I', value)])
    yield row('bochs-v%d-entry-double-use' % version, 'ok', None, base=base,
              patches=[(512, '<I', 0)])
    for name, length, *outcome in (('catalog', 600, 'eio', None, 'ok'),
                                   ('extent', len(data) - 512, 'ok', None)):
        yield row('bochs-v%d-length-within-%s' % (version, name), *outcome, base=base,
                  patches=[], truncate=length)

