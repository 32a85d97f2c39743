# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finds the places of qcow2 structures in an image, so that they can be patched.

Only reads what a sound image says; it is no general reader. The layout is the
one published in QEMU's docs/interop/qcow2.txt.
"""
import struct

MAGIC = 0x514649fb
OFFSET_MASK = 0x00fffffffffffe00
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

EXT_END = 0
EXT_BACKING_FORMAT = 0xe2792aca
EXT_FEATURE_NAMES = 0x6803f857
EXT_BITMAPS = 0x23852875
EXT_DATA_FILE = 0x44415441
EXT_CRYPTO = 0x0537be77

# name: (offset, struct format)
HEADER = {
    'magic': (0, '>I'), 'version': (4, '>I'), 'backing_file_offset': (8, '>Q'),
    'backing_file_size': (16, '>I'), 'cluster_bits': (20, '>I'), 'size': (24, '>Q'),
    'crypt_method': (32, '>I'), 'l1_size': (36, '>I'), 'l1_table_offset': (40, '>Q'),
    'refcount_table_offset': (48, '>Q'), 'refcount_table_clusters': (56, '>I'),
    'nb_snapshots': (60, '>I'), 'snapshots_offset': (64, '>Q'),
    'incompatible_features': (72, '>Q'), 'compatible_features': (80, '>Q'),
    'autoclear_features': (88, '>Q'), 'refcount_order': (96, '>I'),
    'header_length': (100, '>I'), 'compression_type': (104, '>B'),
}


class Image:
    """The bytes of an image; every method names offsets in the file."""

    def __init__(self, data):
        self.data = data
        assert self.header('magic') == MAGIC
        self.cluster_bits = self.header('cluster_bits')
        self.cluster_size = 1 << self.cluster_bits
        self.extended_l2 = self.header('version') >= 3 and \
            bool(self.header('incompatible_features') & 16)
        self.l2_entry_size = 16 if self.extended_l2 else 8
        self.refcount_bits = 1 << (self.header('refcount_order')
                                   if self.header('version') >= 3 else 4)

    @classmethod
    def load(cls, path):
        with open(path, 'rb') as file:
            return cls(file.read())

    def get(self, offset, fmt='>Q'):
        return struct.unpack_from(fmt, self.data, offset)[0]

    def header(self, name):
        offset, fmt = HEADER[name]
        return self.get(offset, fmt)

    def l1(self, index=0):
        """Offset of an entry of the active L1 table."""
        return self.header('l1_table_offset') + 8 * index

    def l2(self, guest):
        """Offset of the L2 entry for a guest offset."""
        index = guest >> self.cluster_bits
        per_table = self.cluster_size // self.l2_entry_size
        table = self.get(self.l1(index // per_table)) & OFFSET_MASK
        assert table
        return table + self.l2_entry_size * (index % per_table)

    def host(self, guest):
        """Where the data of a guest cluster lies."""
        return self.get(self.l2(guest)) & OFFSET_MASK

    def refcount_table(self, index=0):
        """Offset of an entry of the refcount table."""
        return self.header('refcount_table_offset') + 8 * index

    def refcount(self, host):
        """Offset of the refcount of a host cluster; refcounts of whole bytes only."""
        index = host >> self.cluster_bits
        per_block = self.cluster_size * 8 // self.refcount_bits
        block = self.get(self.refcount_table(index // per_block)) & OFFSET_MASK
        assert block and self.refcount_bits >= 8
        return block + index % per_block * (self.refcount_bits // 8)

    def refcount_format(self):
        return {8: '>B', 16: '>H', 32: '>I', 64: '>Q'}[self.refcount_bits]

    def extensions(self):
        """(type, offset of the extension's header, data length) of each one."""
        offset = 72 if self.header('version') == 2 else self.header('header_length')
        while True:
            kind, length = self.get(offset, '>I'), self.get(offset + 4, '>I')
            yield kind, offset, length
            if kind == EXT_END:
                return
            offset += 8 + (length + 7) // 8 * 8

    def extension(self, kind):
        """Offset of one extension's header."""
        return next(offset for k, offset, _ in self.extensions() if k == kind)

    def snapshot(self, index=0):
        """Offset of an entry of the snapshot table."""
        offset = self.header('snapshots_offset')
        for _ in range(index):
            id_size, name_size = self.get(offset + 12, '>H'), self.get(offset + 14, '>H')
            extra = self.get(offset + 36, '>I')
            offset += (40 + extra + id_size + name_size + 7) // 8 * 8
        return offset


def patched(data, patches):
    """A copy of `data` with [(offset, struct format or None for bytes, value)] applied."""
    data = bytearray(data)
    for offset, fmt, value in patches:
        raw = value if fmt is None else struct.pack(fmt, value)
        if offset + len(raw) > len(data):
            data.extend(bytes(offset + len(raw) - len(data)))
        data[offset:offset + len(raw)] = raw
    return bytes(data)


def header_patch(name, value):
    offset, fmt = HEADER[name]
    return offset, fmt, value


def set_features(image, field, bits):
    """The patch that adds feature bits to one of the three fields of version 3."""
    return header_patch(field, image.header(field) | bits)


def feature_name(kind, bit, name):
    """One entry of a feature name table (kind 0 incompatible, 1 compatible, 2 autoclear)."""
    return struct.pack('>BB46s', kind, bit, name.encode())


def extension_bytes(kind, payload):
    return struct.pack('>II', kind, len(payload)) + payload + bytes(-len(payload) % 8)


def with_extension(image, kind, payload):
    """The patch that puts an extension in front of all others.

    The image must not name a backing file in the header's cluster, since that
    text would be overwritten.
    """
    assert image.header('backing_file_offset') == 0
    start = 72 if image.header('version') == 2 else image.header('header_length')
    end = image.extension(EXT_END) + 8
    return start, None, extension_bytes(kind, payload) + image.data[start:end]


def snapshot_entry(l1_offset, l1_size, ident, name, date, vm_clock, vm_state_size, extra):
    """One entry of a snapshot table; date is (seconds, nanoseconds)."""
    data = struct.pack('>QIHHIIQII', l1_offset, l1_size, len(ident), len(name), *date, vm_clock,
                       vm_state_size, len(extra)) + extra + ident + name
    return data + bytes(-len(data) % 8)
