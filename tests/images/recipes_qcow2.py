# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recipes for sound qcow2 images of every kind, each in one file."""
import struct

import model
import qcow2
from corpus import G, K, M, T

CLUSTER_SIZES = [512 << n for n in range(13)]


def scattered(cluster, size):
    """Whole clusters and parts of them, neighbours, and the disk's last byte."""
    last = (size - 1) // cluster * cluster
    return [('write', 0, cluster, 0x11), ('fill', 3 * cluster, 2 * cluster, 1),
            ('write', 7 * cluster + cluster // 2, 512, 0x22),
            ('write', 9 * cluster - 512, 1024, 0x33),
            ('zero', 12 * cluster, cluster), ('zero', 4 * cluster, cluster),
            ('fill', 15 * cluster, cluster, 2), ('unmap', 15 * cluster, cluster),
            ('write', last, size - last, 0x44)]


def versions(corpus):
    size = 4 * M + 512
    for compat in ('0.10', '1.1'):
        corpus.plain('v%d.qcow2' % (2 if compat == '0.10' else 3), size, 'compat=' + compat,
                     [op for op in scattered(64 * K, size)], ('quick', 'version'))


def cluster_sizes(corpus):
    for cluster in CLUSTER_SIZES:
        size = max(256 * cluster if cluster < 64 * K else 20 * cluster, M) + 1536
        corpus.plain('cluster-%d.qcow2' % cluster, size, 'cluster_size=%d' % cluster,
                     scattered(cluster, size), ('quick', 'cluster-size'))


def refcount_widths(corpus):
    for bits in (1, 2, 4, 8, 16, 32, 64):
        corpus.plain('refcount-%d.qcow2' % bits, M, 'cluster_size=1k,refcount_bits=%d' % bits,
                     scattered(K, M), ('quick', 'refcount-bits'))


def zero_clusters(corpus):
    """Zero with and without a place, discarded, never written."""
    ops = [('fill', 0, 512 * K, 1), ('zero', 64 * K, 64 * K), ('unmap', 192 * K, 64 * K),
           ('discard', 320 * K, 64 * K), ('zero', 640 * K, 64 * K)]
    for cluster in (4 * K, 64 * K):
        corpus.plain('zero-%d.qcow2' % cluster, M, 'cluster_size=%d' % cluster, ops,
                     ('quick', 'zero'))
    how = corpus.create('zero-base.qcow2', M, '', [('fill', 0, M, 9)])
    how = corpus.create('zero-overlay.qcow2', M, '', ops, ('-b', 'zero-base.qcow2', '-F', 'qcow2'))
    corpus.note('zero-overlay.qcow2', M, how, ('quick', 'zero', 'chain'),
                sha256=model.Disk(M).apply([('fill', 0, M, 9)] + ops).sha256())


def compressed(corpus):
    for kind in ('zlib', 'zstd'):
        for cluster in (512, 4 * K, 64 * K, 2 * M):
            size = 16 * cluster
            ops = [('pack', 0, cluster, 1), ('pack', cluster, cluster, 2),
                   ('fill', 2 * cluster, cluster, 3), ('pack', 3 * cluster, cluster, 4),
                   ('write', 3 * cluster + cluster // 2, min(512, cluster // 2 or 512), 0x11),
                   ('pack', 9 * cluster, cluster, 5), ('pack', 15 * cluster, cluster, 6)]
            if cluster == 512:
                ops = [op for op in ops if op[2] == 512 and op[1] % 512 == 0]
            corpus.plain('compressed-%s-%d.qcow2' % (kind, cluster), size,
                         'cluster_size=%d,compression_type=%s' % (cluster, kind), ops,
                         ('compressed', *(['quick'] if cluster <= 64 * K else [])))
    for kind in ('zlib', 'zstd'):
        compressed_whole(corpus, kind)


def compressed_whole(corpus, kind):
    """Everything through `convert -c`: text, noise that does not shrink, zeroes."""
    ops = [('text', 0, 700 * K, 1), ('fill', 768 * K, 128 * K, 2), ('text', 2 * M, 300 * K, 3),
           ('write', 3 * M, 512 * K, 0x5a)]
    disk = model.Disk(4 * M).apply(ops)
    corpus.save('.whole.raw', bytes(disk.data))
    file = 'compressed-%s-whole.qcow2' % kind
    how = corpus.img('convert', '-f', 'raw', '-c', '-O', 'qcow2', '-o', 'compression_type=' + kind,
                     '.whole.raw', file)
    corpus.note(file, 4 * M, how, ('quick', 'compressed'), sha256=disk.sha256())


def extended_l2(corpus):
    for cluster in (16 * K, 64 * K, 128 * K, 2 * M):
        sub = cluster // 32
        ops = [('write', sub, sub, 0x11), ('fill', 5 * sub, 3 * sub, 1),
               ('write', 9 * sub + 512, 512, 0x22) if sub > 512 else ('write', 9 * sub, sub, 0x22),
               ('zero', 6 * sub, sub), ('zero', cluster + 2 * sub, 4 * sub),
               ('fill', 2 * cluster, cluster, 2), ('zero', 3 * cluster, cluster),
               ('fill', 4 * cluster, cluster, 3), ('discard', 4 * cluster, cluster),
               ('pack', 5 * cluster, cluster, 4), ('write', 12 * cluster - sub, sub, 0x33)]
        corpus.plain('extended-l2-%d.qcow2' % cluster, 12 * cluster,
                     'extended_l2=on,cluster_size=%d' % cluster, ops,
                     ('extended-l2', *(['quick'] if cluster <= 128 * K else [])))
    base = [('fill', 0, M, 9)]
    over = [('write', 8 * K, 2 * K, 0x11), ('zero', 20 * K, 4 * K), ('zero', 128 * K, 64 * K)]
    corpus.create('extended-l2-base.qcow2', M, '', base)
    how = corpus.create('extended-l2-overlay.qcow2', M, 'extended_l2=on', over,
                        ('-b', 'extended-l2-base.qcow2', '-F', 'qcow2'))
    corpus.note('extended-l2-overlay.qcow2', M, how, ('quick', 'extended-l2', 'chain'),
                sha256=model.Disk(M).apply(base + over).sha256())


def data_files(corpus):
    ops = [('write', 0, 64 * K, 0x11), ('fill', 320 * K, 100 * K, 1), ('zero', 64 * K, 64 * K),
           ('zero', 320 * K, 64 * K), ('write', M, 512, 0x22), ('fill', 2 * M - 512, 512, 2)]
    for raw in ('off', 'on'):
        stem = 'external' + ('-raw' if raw == 'on' else '')
        corpus.plain(stem + '.qcow2', 2 * M, 'data_file=%s.data,data_file_raw=%s' % (stem, raw),
                     ops, ('quick', 'data-file'))
    discards = ops + [('discard', 0, 64 * K), ('write', 5 * 64 * K, 4 * K, 0x55)]
    corpus.plain('external-discard.qcow2', 2 * M, 'data_file=external-discard.data', discards,
                 ('quick', 'data-file'))
    # QEMU takes the name of a data file relative to where the tool runs.
    corpus.plain('sub/external.qcow2', 2 * M, 'data_file=sub/external.data', ops,
                 ('quick', 'data-file'))


def snapshots(corpus):
    """Three snapshots with changed data, and changes of size between them.

    QEMU shows a snapshot with the size that the disk has now, cut or filled with zeroes.
    """
    file, disk = 'snapshots.qcow2', model.Disk(2 * M)
    steps = [(2 * M, [('fill', 0, 512 * K, 1), ('write', M, 64 * K, 0x11)]),
             (3 * M, [('write', 64 * K, 100 * K, 0x22), ('write', 2 * M + K, 64 * K, 0x33)]),
             (3 * M + 512, [('zero', 128 * K, 64 * K), ('write', 3 * M, 512, 0x44)])]
    how, contents = [corpus.create(file, 2 * M)], {}
    for number, (size, ops) in enumerate(steps):
        if number:
            how.append(corpus.img('resize', '-q', file, size))
        how.append(corpus.write(file, ops))
        name = ('first', 'a second one with a longer name', 'third')[number]
        contents[name] = bytes(disk.resize(size).apply(ops).data)
        how.append(corpus.img('snapshot', '-c', name, file))
    last = [('write', 256 * K, 512, 0x55), ('discard', 0, 64 * K)]
    how.append(corpus.write(file, last))
    corpus.note(file, 3 * M + 512, '; '.join(how), ('quick', 'snapshot'),
                sha256=disk.apply(last).sha256(), snapshots=resized(contents, 3 * M + 512))
    back = 'snapshots-smaller.qcow2'
    corpus.save(back, corpus.read(file))
    how.append(corpus.img('snapshot', '-a', 'first', back))
    corpus.note(back, 2 * M, '; '.join(how), ('quick', 'snapshot'),
                sha256=model.Disk(2 * M, contents['first']).sha256(),
                snapshots=resized(contents, 2 * M))


def resized(contents, size):
    return {name: model.Disk(size, data).sha256() for name, data in contents.items()}


def snapshot_entries(corpus):
    """Entries as other programs write them: VM state, times, shorter and longer extra data."""
    ops = [('fill', 0, 64 * K, 1)]
    corpus.create('.entries.qcow2', M, '', ops)
    for name in ('one', 'two', 'three'):
        corpus.img('snapshot', '-c', name, '.entries.qcow2')
    image = qcow2.Image(corpus.read('.entries.qcow2'))
    l1 = [image.get(image.snapshot(n)) for n in range(3)]
    size = image.get(image.snapshot(), '>I') and M
    icount = struct.pack('>QQQ', 0, size, 123456)
    table = b''.join((
        qcow2.snapshot_entry(l1[0], 1, b'1', b'old', (1500000000, 5), 3723004000000, 12345, b''),
        qcow2.snapshot_entry(l1[1], 1, b'7', b'state', (1600000000, 0), 90061001000000, 99,
                             struct.pack('>QQ', 5 << 20, size)),
        qcow2.snapshot_entry(l1[2], 1, b'longer-id', b'extra', (1700000000, 999), 1, 0,
                             icount + b'unknown data')))
    data = qcow2.patched(image.data, [(image.header('snapshots_offset'), None, table)])
    corpus.save('snapshot-entries.qcow2', data)
    content = model.Disk(M).apply(ops).sha256()
    corpus.note('snapshot-entries.qcow2', M, 'the snapshot table rewritten', ('quick', 'snapshot'),
                sha256=content, snapshots={'old': content, 'state': content, 'extra': content},
                expect='check', check_status=2)


def preallocated(corpus):
    for mode in ('off', 'metadata', 'falloc', 'full'):
        corpus.plain('preallocation-%s.qcow2' % mode, 4 * M, 'preallocation=' + mode,
                     [('write', M, 4 * K, 0x11)], ('quick', 'preallocation'))


def dirty(corpus):
    ops = [('write', 64 * K, 128 * K, 0x11)]
    how = corpus.create('dirty.qcow2', M, 'lazy_refcounts=on')
    how += corpus.write('dirty.qcow2', ops, crash=True)
    corpus.note('dirty.qcow2', M, how + ', then abort', ('quick', 'lazy-refcounts'),
                sha256=model.Disk(M).apply(ops).sha256(), expect='check', check_status=2)
    corpus.plain('lazy-refcounts.qcow2', M, 'lazy_refcounts=on', ops, ('quick', 'lazy-refcounts'))


def bitmaps(corpus):
    file, ops = 'bitmaps.qcow2', [('write', 64 * K, 128 * K, 0x11)]
    how = [corpus.create(file, 4 * M)]
    for name, granularity, more in (('enabled', 64 * K, ()), ('disabled', 512, ('--disable',)),
                                    ('coarse', 2 * M, ())):
        how.append(corpus.img('bitmap', '--add', '-g', granularity, *more, file, name))
    how.append(corpus.write(file, ops))
    disk = model.Disk(4 * M).apply(ops)
    corpus.note(file, 4 * M, '; '.join(how), ('quick', 'bitmap'), sha256=disk.sha256())
    corpus.save('bitmaps-in-use.qcow2', corpus.read(file))
    last = [('write', M, 512, 0x22)]
    crashed = corpus.write('bitmaps-in-use.qcow2', last, crash=True)
    corpus.note('bitmaps-in-use.qcow2', 4 * M, 'a copy of bitmaps.qcow2' + crashed + ', then abort',
                ('quick', 'bitmap'), sha256=disk.apply(last).sha256())


def huge(corpus):
    for cluster, size in ((64 * K, 63 * T), (2 * M, 63 * T), (64 * K, 100 * G)):
        file = 'huge-%dg-%d.qcow2' % (size // G, cluster)
        ops = [('write', 0, 4 * K, 1), ('write', size // 2, 4 * K, 2),
               ('write', size - 4 * K, 4 * K, 3)]
        how = corpus.create(file, size, 'cluster_size=%d' % cluster, ops)
        corpus.note(file, size, how, ('quick', 'huge'))
    corpus.note(file, size, 'the same, below a raw node', ('huge', 'opts'), name='huge-raw',
                format='raw', opts='driver=raw,file.driver=qcow2,file.file.filename=' + file)
    corpus.plain('empty.qcow2', 0, '', (), ('quick', 'odd-size'))
    corpus.plain('one-sector.qcow2', 512, '', [('write', 0, 512, 0x11)], ('quick', 'odd-size'))


RECIPES = (versions, cluster_sizes, refcount_widths, zero_clusters, compressed, extended_l2,
           data_files, snapshots, snapshot_entries, preallocated, dirty, bitmaps, huge)
