# SPDX-License-Identifier: LGPL-2.1-or-later
"""The qcow2 half of damage.py: header fields, extensions, tables and their entries."""
import zlib

import qcow2

BIG64 = (1 << 64) - 1
BIG32 = 0xffffffff

# Fields of the header of v3.qcow2 (clusters of 512 bytes):
# (field, value, expected, hint[, what QEMU 10.0 does instead])
FIELDS = [
    ('magic', 0x514649fa, 'refuse', 'qcow2|magic'),
    ('version', 0, 'refuse', 'version'),
    ('version', 1, 'refuse', 'version'),
    ('version', 4, 'refuse', 'version'),
    ('version', BIG32, 'refuse', 'version'),
    ('cluster_bits', 0, 'refuse', 'cluster'),
    ('cluster_bits', 8, 'refuse', 'cluster'),
    ('cluster_bits', 22, 'refuse', 'cluster'),
    ('cluster_bits', 40, 'refuse', 'cluster'),
    ('cluster_bits', 63, 'refuse', 'cluster'),
    ('cluster_bits', BIG32, 'refuse', 'cluster'),
    ('size', 1 << 40, 'refuse', 'L1|size'),
    ('size', 1 << 62, 'refuse', 'L1|size'),
    ('size', 1 << 63, 'refuse', 'L1|size'),
    ('size', BIG64, 'refuse', 'L1|size'),
    ('crypt_method', 2, 'refuse', 'encrypt|crypt|luks'),
    ('crypt_method', 3, 'refuse', 'encrypt|crypt'),
    ('crypt_method', BIG32, 'refuse', 'encrypt|crypt'),
    ('l1_size', 0, 'refuse', 'L1'),
    ('l1_size', 1, 'refuse', 'L1'),
    ('l1_size', (32 << 20) // 8 + 1, 'refuse', 'L1'),
    ('l1_size', BIG32, 'refuse', 'L1'),
    ('l1_table_offset', 1, 'refuse', 'L1'),
    ('l1_table_offset', 513, 'refuse', 'L1'),
    ('l1_table_offset', 1 << 40, 'refuse', 'L1', 'check'),
    ('l1_table_offset', 1 << 63, 'refuse', 'L1'),
    ('l1_table_offset', BIG64 & ~511, 'refuse', 'L1'),
    ('refcount_table_offset', 1 << 40, 'refuse', 'refcount|reference count', 'check'),
    ('refcount_table_offset', 1, 'refuse', 'refcount|reference count'),
    ('refcount_table_offset', 1 << 63, 'refuse', 'refcount|reference count'),
    ('refcount_table_offset', BIG64 & ~511, 'refuse', 'refcount|reference count'),
    ('refcount_table_clusters', 0, 'refuse', 'refcount|reference count'),
    ('refcount_table_clusters', (8 << 20) // 512 + 1, 'refuse', 'refcount|reference count'),
    ('refcount_table_clusters', BIG32, 'refuse', 'refcount|reference count'),
    ('nb_snapshots', 65537, 'refuse', 'snapshot'),
    ('nb_snapshots', BIG32, 'refuse', 'snapshot'),
    ('refcount_order', 7, 'refuse', 'refcount|reference count'),
    ('refcount_order', 63, 'refuse', 'refcount|reference count'),
    ('refcount_order', BIG32, 'refuse', 'refcount|reference count'),
    ('header_length', 0, 'refuse', 'header'),
    ('header_length', 71, 'refuse', 'header'),
    ('header_length', 103, 'refuse', 'header'),
    ('header_length', 105, 'bounded', None),
    ('header_length', 513, 'refuse', 'header'),
    ('header_length', BIG32 & ~7, 'refuse', 'header'),
    ('incompatible_features', 1 << 5, 'refuse', 'feature'),
    ('incompatible_features', 1 << 63, 'refuse', 'feature'),
    ('incompatible_features', 4, 'info', 'data'),
    ('incompatible_features', 8, 'refuse', 'compression'),
    ('incompatible_features', 16, 'refuse', 'extended|subcluster|cluster'),
    ('compression_type', 1, 'refuse', 'compression'),
    ('compression_type', 2, 'refuse', 'compression'),
    ('compression_type', 255, 'refuse', 'compression'),
    ('backing_file_offset', 1 << 40, 'refuse', 'backing'),
    ('compatible_features', BIG64 & ~1, 'ok', None),
    ('autoclear_features', BIG64 & ~3, 'ok', None),
]

LENGTHS = [(0, 'qcow2|short|header'), (3, 'qcow2|short|header'), (23, 'qcow2|short|header'),
           (71, 'short|header|qcow2'), (103, 'short|header|qcow2'),
           (511, 'short|header|L1', 'check')]


def row(name, base, patches, expect, hint=None, qemu=None, truncate=None):
    return {'name': 'qcow2-' + name, 'base': base, 'patches': patches, 'expect': expect,
            'hint': hint, 'qemu': qemu, 'truncate': truncate}


def rows(load):
    for name, value, *outcome in FIELDS:
        yield row('%s-%x' % (name.replace('_', '-'), value), 'v3.qcow2',
                  [qcow2.header_patch(name, value)], *outcome)
    for length, hint, *more in LENGTHS:
        yield row('length-%d' % length, 'v3.qcow2', [], 'refuse', hint, *more, truncate=length)
    for part in (version_2, backing, extensions, snapshots, l1_entries, l2_entries, compressed,
                 extended_l2, data_file, bitmaps, refcounts):
        yield from part(lambda name: qcow2.Image(load(name)))


def version_2(image):
    """The same in version 2, whose header ends earlier."""
    base = 'v2.qcow2'
    image(base)
    for name, value, hint in (('cluster_bits', 8, 'cluster'), ('l1_size', BIG32, 'L1'),
                              ('l1_table_offset', 1, 'L1'), ('size', 1 << 62, 'L1|size'),
                              ('nb_snapshots', BIG32, 'snapshot')):
        yield row('v2-%s-%x' % (name.replace('_', '-'), value), base,
                  [qcow2.header_patch(name, value)], 'refuse', hint)


def backing(image):
    base = 'backing-overlay.qcow2'
    data = image(base)
    for name, value in (('backing_file_offset', 1025), ('backing_file_offset', 1 << 63),
                        ('backing_file_offset', BIG64), ('backing_file_size', 1024),
                        ('backing_file_size', BIG32)):
        yield row('%s-%x' % (name.replace('_', '-'), value), base,
                  [qcow2.header_patch(name, value)], 'refuse', 'backing')
    yield row('backing-file-offset-in-header', base,
              [qcow2.header_patch('backing_file_offset', 8)], 'bounded', None)
    yield row('backing-format-extension-size', base,
              [(data.extension(qcow2.EXT_BACKING_FORMAT) + 4, '>I', 0x8000)], 'refuse',
              'extension|backing format')


def extensions(image):
    base = 'features.qcow2'
    place = image(base).extension(0x0badcafe)
    for name, value in (('4gib', BIG32), ('2gib', 0x80000000), ('cluster', 1024),
                        ('wrap', 0xfffffff8)):
        yield row('extension-length-' + name, base, [(place + 4, '>I', value)], 'refuse',
                  'extension')
    names = image('extended-l2.qcow2').extension(qcow2.EXT_FEATURE_NAMES)
    yield row('feature-names-odd-size', 'extended-l2.qcow2', [(names + 4, '>I', 47)], 'bounded')


def snapshots(image):
    base = 'snapshots.qcow2'
    data = image(base)
    entry = data.snapshot()
    for name, value in (('1', 1), ('beyond-end', 1 << 40), ('negative', 1 << 63),
                        ('largest', BIG64 & ~1023)):
        yield row('snapshots-offset-' + name, base,
                  [qcow2.header_patch('snapshots_offset', value)], 'refuse', 'snapshot',
                  'check' if name == 'beyond-end' else None)
    for name, patch in {
            'l1-offset-unaligned': (entry, '>Q', data.get(entry) + 8),
            'l1-offset-beyond-end': (entry, '>Q', 1 << 40),
            'l1-size-huge': (entry + 8, '>I', BIG32),
            'l1-size-0': (entry + 8, '>I', 0)}.items():
        yield row('snapshot-' + name, base, [patch], 'check', 'snapshot')
    for name, patch in {
            'id-size': (entry + 12, '>H', 0xffff), 'name-size': (entry + 14, '>H', 0xffff),
            'extra-size': (entry + 36, '>I', BIG32),
            'extra-size-64k': (entry + 36, '>I', 65536)}.items():
        yield row('snapshot-' + name, base, [patch], 'refuse', 'snapshot',
                  None if 'extra' in name else 'check')
    yield row('snapshot-disk-size', base, [(entry + 48, '>Q', BIG64)], 'bounded')


def l1_entries(image):
    base = 'v3.qcow2'
    data = image(base)
    place, value = data.l1(), data.get(data.l1())
    for name, entry in (('low', value + 8), ('high', value | 1 << 60), ('only', 1 << 60)):
        yield row('l1-entry-reserved-bit-' + name, base, [(place, '>Q', entry)], 'check')
    yield row('l1-entry-beyond-end', base, [(place, '>Q', qcow2.COPIED | 1 << 40)], 'eio',
              qemu='check')
    yield row('l1-entry-largest', base, [(place, '>Q', qcow2.COPIED | qcow2.OFFSET_MASK)], 'eio',
              qemu='check')
    yield row('l1-entry-header', base, [(place, '>Q', qcow2.COPIED)], 'check')
    yield row('l1-entry-itself', base, [
        (place, '>Q', qcow2.COPIED | data.header('l1_table_offset'))], 'bounded')
    yield row('l1-entry-twice', base, [(place + 8, '>Q', value)], 'check')


def l2_entries(image):
    base = 'v3.qcow2'
    data = image(base)
    place, value = data.l2(0), data.get(data.l2(0))
    end = len(data.data)
    for name, entry, expect, qemu in (
            ('beyond-end', qcow2.COPIED | 1 << 40, 'eio', 'check'),
            ('at-end', qcow2.COPIED | end // 512 * 512 + 512, 'eio', 'check'),
            ('largest', qcow2.COPIED | qcow2.OFFSET_MASK, 'eio', 'check'),
            ('header', qcow2.COPIED | 1, 'check', None),
            ('into-l1', qcow2.COPIED | data.header('l1_table_offset'), 'check', None),
            ('into-refcounts', qcow2.COPIED | data.header('refcount_table_offset'), 'check', None),
            ('reserved-bit-low', value | 2, 'check', None),
            ('reserved-bit-high', value | 1 << 61, 'check', None),
            ('not-copied', value & ~qcow2.COPIED, 'check', None),
            ('compressed-beyond-end', qcow2.COMPRESSED | 1 << 40, 'eio', None),
            ('compressed-data', qcow2.COMPRESSED | value & qcow2.OFFSET_MASK, 'eio', None)):
        yield row('l2-entry-' + name, base, [(place, '>Q', entry)], expect, None, qemu)
    data = image('v2.qcow2')
    place, value = data.l2(0), data.get(data.l2(0))
    yield row('l2-entry-unaligned', 'v2.qcow2', [(place, '>Q', value + 512)], 'eio')
    yield row('l2-entry-zero-in-v2', 'v2.qcow2', [(place, '>Q', value | 1)], 'eio')


def compressed(image):
    for base in ('deflate.qcow2', 'zstd.qcow2'):
        stem = base[:-6]
        data = image(base)
        place, value = data.l2(0), data.get(data.l2(0))
        bits = 62 - (data.cluster_bits - 8)
        host = value & ((1 << bits) - 1)
        yield row(stem + '-garbage', base, [(host, None, b'\xff' * 64)], 'eio')
        yield row(stem + '-zeroes', base, [(host, None, bytes(256))], 'eio')
        yield row(stem + '-too-short', base, [
            (place, '>Q', value & ~(((1 << (62 - bits)) - 1) << bits)),
            (host + 100, None, bytes(412))], 'eio')
        yield row(stem + '-beyond-end', base, [
            (place, '>Q', qcow2.COMPRESSED | (1 << bits) - 1024)], 'eio')
        yield row(stem + '-past-end', base, [
            (place, '>Q', qcow2.COMPRESSED | ((1 << 62) - 1) & ~((1 << bits) - 1) |
             len(data.data) - 100)], 'eio')
    base = 'deflate.qcow2'
    data = image(base)
    place = data.l2(0)
    host = data.get(place) & ((1 << (62 - (data.cluster_bits - 8))) - 1)
    # Stored deflate blocks; the whole cluster is 2048 bytes.
    yield row('deflate-too-little', base, [(host, None, stored(bytes(512)))], 'eio')
    yield row('deflate-too-much', base, [(host, None, too_much())], 'eio', None, 'ok')


def stored(data):
    """One stored, final deflate block."""
    length = len(data).to_bytes(2, 'little') + (len(data) ^ 0xffff).to_bytes(2, 'little')
    return b'\x01' + length + data


def too_much():
    """A deflate stream for 64 KiB, far more than a cluster."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(bytes(1 << 16)) + packer.flush()


def extended_l2(image):
    base = 'extended-l2.qcow2'
    data = image(base)
    place = data.l2(0)
    bitmap = data.get(place + 8)
    yield row('subcluster-zero-and-allocated', base,
              [(place + 8, '>Q', bitmap | 2 | 2 << 32)], 'eio')
    yield row('subcluster-allocated-nowhere', base, [
        (data.l2(48 * 1024) + 8, '>Q', 1)], 'eio')
    yield row('extended-l2-compressed-with-bitmap', base, [
        (place, '>Q', qcow2.COMPRESSED | data.get(place) & qcow2.OFFSET_MASK)], 'eio')


def data_file(image):
    base = 'data-file.qcow2'
    data = image(base)
    place = data.extension(qcow2.EXT_DATA_FILE)
    yield row('data-file-name-huge', base, [(place + 4, '>I', 0x7fffffff)], 'refuse',
              'extension|data file')
    yield row('data-file-name-gone', base, [(place, '>I', 0x0badcafe)], 'info', 'data')
    entry = data.l2(4096)
    yield row('data-file-entry-elsewhere', base, [
        (entry, '>Q', qcow2.COPIED | 0x2000)], 'eio')
    yield row('data-file-compressed', base, [(entry, '>Q', qcow2.COMPRESSED | 4096)], 'eio')


def bitmaps(image):
    base = 'bitmaps.qcow2'
    data = image(base)
    place = data.extension(qcow2.EXT_BITMAPS) + 8
    for name, patch in {'count-0': (place, '>I', 0), 'count-huge': (place, '>I', BIG32),
                        'count-65536': (place, '>I', 65536), 'reserved': (place + 4, '>I', 1),
                        'directory-size-0': (place + 8, '>Q', 0),
                        'directory-size-huge': (place + 8, '>Q', BIG64),
                        'directory-offset-unaligned': (place + 16, '>Q', data.get(place + 16) + 8),
                        'directory-offset-negative': (place + 16, '>Q', 1 << 63),
                        'extension-length': (place - 4, '>I', 16)}.items():
        yield row('bitmaps-' + name, base, [patch], 'refuse', 'bitmap')
    directory = data.get(place + 16)
    for name, patch in {'directory-beyond-end': (place + 16, '>Q', 1 << 40),
                        'table-size': (directory + 8, '>I', BIG32),
                        'table-offset': (directory, '>Q', 1 << 62),
                        'granularity': (directory + 17, '>B', 255),
                        'name-size': (directory + 18, '>H', 65535),
                        'extra-size': (directory + 20, '>I', BIG32)}.items():
        yield row('bitmap-' + name, base, [patch], 'bounded')
    yield row('bitmaps-not-autoclear', base, [
        qcow2.header_patch('autoclear_features', 0)], 'check')


def refcounts(image):
    base = 'v3.qcow2'
    data = image(base)
    place, value = data.refcount_table(), data.get(data.refcount_table())
    for name, entry in (('unaligned', value + 8), ('beyond-end', 1 << 40), ('cleared', 0),
                        ('itself', data.header('refcount_table_offset')),
                        ('largest', BIG64 & ~511)):
        yield row('refcount-block-' + name, base, [(place, '>Q', entry)], 'check')
    yield row('refcount-table-in-header', base, [
        qcow2.header_patch('refcount_table_offset', 0)], 'bounded')
