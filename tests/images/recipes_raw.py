# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recipes for raw and Bochs images, and for disks that hold a file system."""
import hashlib
import os
import subprocess

import bochs
import model
import qemu
from corpus import K, M, T

SIZES = {'empty': 0, '1': 1, '511': 511, '512': 512, '513': 513, '4097': 4097,
         '1m-plus-1': M + 1}


def raw_sizes(corpus):
    for name, size in SIZES.items():
        file = 'raw-%s.raw' % name
        data = model.fill_bytes(size, size)
        corpus.save(file, data)
        corpus.note(file, size, '%d bytes' % size, ('quick', 'raw', 'odd-size'), format='raw',
                    sha256=hashlib.sha256(data + bytes(-size % 512)).hexdigest())


def raw_holes(corpus):
    """Data, holes, and zeroes that are written; the last hole reaches the end."""
    ops = [('fill', 64 * K, 64 * K, 1), ('write', M, 4 * K, 0x11), ('write', M + 8 * K, 4 * K, 0)]
    with open(corpus.path('raw-holes.raw'), 'wb') as file:
        file.truncate(4 * M)
        for op in ops:
            file.seek(op[1])
            file.write(model.payload(op))
    corpus.note('raw-holes.raw', 4 * M, 'sparse file', ('quick', 'raw'), format='raw',
                sha256=model.Disk(4 * M).apply(ops).sha256())
    data = bytes(model.Disk(4 * M).apply(ops).data)
    corpus.note('raw-holes.raw', 128 * K, 'part of the sparse file', ('quick', 'raw', 'opts'),
                name='raw-window', format='raw',
                opts='driver=raw,offset=65536,size=131072,file.filename=raw-holes.raw',
                sha256=hashlib.sha256(data[64 * K:192 * K]).hexdigest())
    corpus.note('raw-holes.raw', 4 * M, 'the sparse file, by the raw driver on a file node',
                ('raw', 'opts'), name='raw-opts', format='raw',
                opts='driver=raw,file.driver=file,file.filename=raw-holes.raw',
                sha256=hashlib.sha256(data).hexdigest())


def raw_huge(corpus):
    """63 TiB where the file system takes it, else what it takes."""
    for size in (63 * T, 15 * T, 3 * T):
        file = 'raw-%dt.raw' % (size // T)
        try:
            with open(corpus.path(file), 'wb') as out:
                out.truncate(size)
                for offset, byte in ((0, 1), (size // 2, 2), (size - 4096, 3)):
                    out.seek(offset)
                    out.write(bytes([byte]) * 4096)
        except OSError:
            os.unlink(corpus.path(file))
            continue
        corpus.note(file, size, 'sparse file with 4 KiB at 0, in the middle and at the end',
                    ('quick', 'raw', 'huge'), format='raw')
        return


def bochs_images(corpus):
    layouts = {'small-extents': (512 * K, 4096), 'usual': (M, 16384),
               'big-extents': (4 * M, 512 * K)}
    for name, (disk, extent) in layouts.items():
        for number, version in ((1, bochs.V1), (2, bochs.V2)):
            image = bochs.sample(version, disk, extent)
            file = 'bochs-v%d-%s.img' % (number, name)
            corpus.save(file, image.file())
            corpus.note(file, disk, 'tests/images/bochs.py, extents of %d bytes' % extent,
                        ('quick', 'bochs'), format='bochs',
                        sha256=hashlib.sha256(image.content()).hexdigest())
    image = bochs.Image(bochs.V2, 100 * 512, 8192, catalog=64)
    image.write(99 * 512, b'\x55' * 512)
    corpus.save('bochs-odd.img', image.file())
    corpus.note('bochs-odd.img', 100 * 512,
                'tests/images/bochs.py: the disk ends inside an extent, the catalog is longer',
                ('quick', 'bochs', 'odd-size'), format='bochs',
                sha256=hashlib.sha256(image.content()).hexdigest())


def bximage_images(corpus):
    """Empty images from Bochs' own tool, where it is installed."""
    for size in (10, 1024):
        file = 'bximage-%dm.img' % size
        args = ['bximage', '-func=create', '-hd=%dM' % size, '-imgmode=growing', '-q', file]
        try:
            qemu.run(args, corpus.folder)
        except FileNotFoundError:
            return
        # bximage rounds to whole cylinders of 16 heads and 63 sectors.
        disk = size * M // (16 * 63 * 512) * (16 * 63 * 512)
        corpus.note(file, disk, ' '.join(args), ('bochs',), format='bochs')


def bochs_chain(corpus):
    """qcow2 overlay on a Bochs image."""
    base = bochs.sample(bochs.V2, M, 16384)
    corpus.save('bochs-base.img', base.file())
    ops = [('write', 16 * K, 4 * K, 0x77)]
    how = corpus.create('bochs-overlay.qcow2', 2 * M, '', ops,
                        ('-b', 'bochs-base.img', '-F', 'bochs'))
    corpus.note('bochs-overlay.qcow2', 2 * M, how, ('quick', 'bochs', 'chain'),
                sha256=model.Disk(2 * M, base.content()).apply(ops).sha256())


def file_system(corpus):
    """An ext4 file system that holds this folder, raw and as qcow2."""
    env = dict(os.environ, E2FSPROGS_FAKE_TIME='1700000000')
    args = ['mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096',
            '-U', '6f2a4d3c-0b7e-4c55-9a57-3a1f0f4b9b11',
            '-E', 'hash_seed=6f2a4d3c-0b7e-4c55-9a57-3a1f0f4b9b11,root_owner=0:0',
            '-d', os.path.dirname(os.path.abspath(__file__)), 'ext4.raw', '16384k']
    try:
        subprocess.run(args, cwd=corpus.folder, check=True, env=env, capture_output=True)
    except FileNotFoundError:
        return
    digest = hashlib.sha256(corpus.read('ext4.raw')).hexdigest()
    corpus.note('ext4.raw', 16 * M, 'mke2fs -d', ('quick', 'raw', 'ext4'), format='raw',
                sha256=digest)
    for name, options in (('plain', []), ('deflate', ['-c']),
                          ('zstd', ['-c', '-o', 'compression_type=zstd'])):
        file = 'ext4-%s.qcow2' % name
        how = corpus.img('convert', '-O', 'qcow2', *options, 'ext4.raw', file)
        tags = {'ext4', 'quick'} | ({'compressed'} if options else set())
        corpus.note(file, 16 * M, how, tags, sha256=digest)


RECIPES = (raw_sizes, raw_holes, raw_huge, bochs_images, bximage_images, bochs_chain, file_system)
