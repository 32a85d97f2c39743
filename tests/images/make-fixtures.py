#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the images in tests/fixtures anew, with their table and their hashes.

Needs QEMU 10.0's tools (BLOCKGRAPH_TEST_QEMU_IMG, _QEMU_IO) and bximage 2.7.
The images are checked in; run this only to add one, and review what changes:
snapshots carry the time at which they were taken.
"""
import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile

import bochs
import model
import qcow2
import qemu

K = 1024
DATA = [('write', 0, 4 * K, 0x11), ('fill', 24 * K, K + 512, 1), ('write', 70 * K, 512, 0x22)]

# name: (image size, options, operations)
PLAIN = {
    'v2': (256 * K, 'compat=0.10,cluster_size=1k',
           DATA + [('write', 255 * K, K, 0x33)]),
    'v3': (256 * K + 512, 'cluster_size=512',
           DATA + [('zero', 2 * K, K), ('unmap', 40 * K, 2 * K), ('discard', 26 * K, K),
                   ('write', 256 * K, 512, 0x33)]),
    'deflate': (192 * K, 'cluster_size=2k',
                [('pack', 0, 2 * K, 1), ('pack', 2 * K, 2 * K, 2), ('write', 4 * K, 2 * K, 0x11),
                 ('pack', 64 * K, 2 * K, 3), ('write', 65 * K, 512, 0x22),
                 ('pack', 190 * K, 2 * K, 4)]),
    'zstd': (192 * K, 'cluster_size=2k,compression_type=zstd',
             [('pack', 0, 2 * K, 1), ('pack', 2 * K, 2 * K, 2), ('write', 4 * K, 2 * K, 0x11),
              ('pack', 190 * K, 2 * K, 4)]),
    'extended-l2': (128 * K, 'cluster_size=16k,extended_l2=on',
                    [('write', 512, K, 0x11), ('write', 3 * K, 512, 0x22), ('zero', 4 * K, K),
                     ('zero', 32 * K, 2 * K)]),
    'refcount-1': (64 * K, 'cluster_size=512,refcount_bits=1', DATA[:2]),
    'refcount-64': (64 * K, 'cluster_size=512,refcount_bits=64', DATA[:2]),
    'data-file': (16 * K, 'cluster_size=1k,data_file=data-file.data',
                  [('write', 4 * K, 2 * K, 0x11), ('fill', 15 * K, K, 1), ('zero', 8 * K, K)]),
    'data-file-raw': (16 * K, 'cluster_size=1k,data_file=data-file-raw.data,data_file_raw=on',
                      [('write', 4 * K, 2 * K, 0x11), ('fill', 15 * K, K, 1)]),
}


class Maker:
    """Runs the tools in a folder and remembers how each file came to be."""

    def __init__(self, folder):
        self.folder = folder
        self.rows = []

    def img(self, *args):
        qemu.img(self.folder, *args)
        return 'qemu-img ' + ' '.join(shlex.quote(str(a)) for a in args)

    def note(self, name, how, content=None):
        self.rows.append((name, how, content))

    def create(self, name, size, options, ops, *extra):
        how = self.img('create', '-q', '-f', 'qcow2', '-o', options, *extra, name, size)
        if ops:
            model.write(self.folder, name, ops)
            how += '; ' + describe(ops)
        return how

    def read(self, name):
        with open(os.path.join(self.folder, name), 'rb') as file:
            return file.read()

    def save(self, name, data):
        with open(os.path.join(self.folder, name), 'wb') as file:
            file.write(data)


def describe(ops):
    return 'qemu-io: ' + ', '.join(' '.join(str(value) for value in op) for op in ops)


def plain_images(make):
    for name, (size, options, ops) in PLAIN.items():
        how = make.create(name + '.qcow2', size, options, ops)
        make.note(name + '.qcow2', how, model.Disk(size).apply(ops).sha256())
    for name in ('data-file.data', 'data-file-raw.data'):
        make.note(name, 'the data file of the image above')


def backing_pair(make):
    base = [('write', 0, 2 * K, 0x11), ('fill', 30 * K, 3 * K, 1)]
    over = [('write', K, K, 0x22), ('zero', 30 * K, K), ('write', 60 * K, K, 0x33)]
    how = make.create('backing-base.qcow2', 33 * K, 'cluster_size=1k', base)
    make.note('backing-base.qcow2', how, model.Disk(33 * K).apply(base).sha256())
    how = make.create('backing-overlay.qcow2', 64 * K, 'cluster_size=1k', over,
                      '-b', 'backing-base.qcow2', '-F', 'qcow2')
    disk = model.Disk(64 * K).apply(base).apply(over)
    make.note('backing-overlay.qcow2', how, disk.sha256())


def snapshots(make):
    """Two snapshots with a change of data and of size between them."""
    name, disk = 'snapshots.qcow2', model.Disk(32 * K)
    steps = [[('write', 0, 4 * K, 0x11), ('fill', 20 * K, K, 1)],
             [('write', K, K, 0x22), ('write', 40 * K, K, 0x33)],
             [('write', 2 * K, K, 0x44)]]
    how = [make.create(name, 32 * K, 'cluster_size=1k', steps[0])]
    disk.apply(steps[0])
    contents = {'first': disk.sha256()}
    how.append(make.img('snapshot', '-c', 'first', name))
    how.append(make.img('resize', '-q', name, 48 * K))
    model.write(make.folder, name, steps[1])
    how.append(describe(steps[1]))
    contents['second'] = disk.resize(48 * K).apply(steps[1]).sha256()
    how.append(make.img('snapshot', '-c', 'second', name))
    model.write(make.folder, name, steps[2])
    how.append(describe(steps[2]))
    contents['now'] = disk.apply(steps[2]).sha256()
    make.note(name, '; '.join(how), ', '.join('%s %s' % item for item in contents.items()))


def special_images(make):
    """Dirty, with bitmaps, encrypted, and with features that nobody knows."""
    ops = [('write', 4 * K, 4 * K, 0x11)]
    content = model.Disk(64 * K).apply(ops).sha256()
    how = make.create('dirty.qcow2', 64 * K, 'cluster_size=1k,lazy_refcounts=on', [])
    model.write(make.folder, 'dirty.qcow2', ops, crash=True)
    make.note('dirty.qcow2', how + '; ' + describe(ops) + ', then abort', content)

    how = [make.create('bitmaps.qcow2', 64 * K, 'cluster_size=1k', []),
           make.img('bitmap', '--add', '-g', 4096, 'bitmaps.qcow2', 'enabled'),
           make.img('bitmap', '--add', '-g', 512, '--disable', 'bitmaps.qcow2', 'disabled')]
    model.write(make.folder, 'bitmaps.qcow2', ops)
    make.note('bitmaps.qcow2', '; '.join(how) + '; ' + describe(ops), content)

    how = make.create('aes.qcow2', 16 * K, 'cluster_size=512', [])
    image = qcow2.Image(make.read('aes.qcow2'))
    make.save('aes.qcow2', qcow2.patched(image.data, [qcow2.header_patch('crypt_method', 1)]))
    make.note('aes.qcow2', how + '; patched: crypt_method 1, to be refused')

    how = make.create('features.qcow2', 64 * K, 'cluster_size=1k', ops)
    image = qcow2.Image(make.read('features.qcow2'))
    patches = [qcow2.with_extension(image, 0x0badcafe, b'nobody knows this'),
               qcow2.set_features(image, 'compatible_features', 1 << 40),
               qcow2.set_features(image, 'autoclear_features', 1 << 41)]
    make.save('features.qcow2', qcow2.patched(image.data, patches))
    make.note('features.qcow2', how + '; patched: extension 0x0badcafe in front of the others, '
              'compatible bit 40, autoclear bit 41', content)


def bochs_images(make):
    for number, version in ((1, bochs.V1), (2, bochs.V2)):
        name = 'bochs-v%d.img' % number
        image = bochs.sample(version, 32 * K, K)
        make.save(name, image.file())
        make.note(name, 'tests/images/bochs.py --version %d --disk 32768 --extent 1024 %s' % (
            number, name), hashlib.sha256(image.content()).hexdigest())
    command = ['bximage', '-func=create', '-hd=10M', '-imgmode=growing', '-q', 'bochs-bximage.img']
    subprocess.run(command, cwd=make.folder, check=True, stdout=subprocess.DEVNULL)
    os.chmod(os.path.join(make.folder, 'bochs-bximage.img'), 0o644)
    make.note('bochs-bximage.img', ' '.join(command), model.Disk(10321920).sha256())


def table(make, tools):
    lines = [HEAD % tools]
    for name, how, content in make.rows:
        digest = hashlib.sha256(make.read(name)).hexdigest()
        lines.append('## %s' % name)
        lines.append('- made by: `%s`' % how)
        lines.append('- sha256: `%s`' % digest)
        if content:
            lines.append('- content: `%s`' % content)
        lines.append('')
    return '\n'.join(lines)


HEAD = '''# Fixtures

Small images that the unit tests read, so that they run without other tools.
`tests/images/make-fixtures.py` made them and wrote this file and
`fixtures.sha256`; `tests/fixtures/check.py` compares the hashes. Tools: %s.

*content* is the sha256 of what a guest reads from the whole disk, computed
from a flat model, not with any image tool. Operations are written as
`KIND OFFSET LENGTH [BYTE or SEED]`, in bytes; `tests/images/model.py` says what each
kind writes. Bochs images: see `tests/images/bochs.py`.
'''


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument('output', nargs='?', default=os.path.join(here, '..', 'fixtures'))
    args = parser.parse_args()
    if not qemu.version().startswith('10.0.'):
        parser.error('needs the tools of QEMU 10.0, not of %s' % qemu.version())
    bximage = subprocess.run(['dpkg-query', '-W', '-f', '${Version}', 'bximage'], check=True,
                             capture_output=True, text=True).stdout
    tools = 'qemu-img and qemu-io %s, bximage %s' % (qemu.version(), bximage)
    with tempfile.TemporaryDirectory() as folder:
        make = Maker(folder)
        for part in (plain_images, backing_pair, snapshots, special_images, bochs_images):
            part(make)
        make.save('README.md', table(make, tools).encode())
        sums = ['%s  %s\n' % (hashlib.sha256(make.read(name)).hexdigest(), name)
                for name in sorted(row[0] for row in make.rows)]
        make.save('fixtures.sha256', ''.join(sums).encode())
        for name in os.listdir(folder):
            shutil.copy(os.path.join(folder, name), args.output)


if __name__ == '__main__':
    main()
