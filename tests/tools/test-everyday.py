#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each line of everyday.txt, with ours and with QEMU's, each in a folder of its own.

Both print the same, end with the same exit code, and leave the same files. So do those
that read or write an image when it is missing, no image, a folder, empty, read-only or
locked by another writer.
"""
import concurrent.futures
import os
import re
import shlex
import shutil
import tempfile

import harness
from folders import FolderTest, Lock, copy, mask

LINES = os.path.join(harness.HERE, 'everyday.txt')
NAMES = re.compile(r'[\w/]+\.(?:raw|img|qcow2|data)')
# What a line takes for granted: how it begins, and a command before it.
FIRST = {
    'qemu-img resize --shrink': 'qemu-img resize -q disk.qcow2 20G',
    'qemu-img snapshot -l': 'qemu-img snapshot -c before-upgrade disk.qcow2',
    'qemu-img snapshot -a': 'qemu-img snapshot -c before-upgrade disk.qcow2',
    'qemu-img snapshot -d': 'qemu-img snapshot -c before-upgrade disk.qcow2',
    'qemu-img bitmap --merge': 'qemu-img bitmap --add disk.qcow2 b0',
    'qemu-img bitmap --merge b0': 'qemu-img bitmap --add disk.qcow2 b1',
    'qemu-img bitmap --remove': 'qemu-img bitmap --add disk.qcow2 b0',
    'qemu-img convert --bitmaps': 'qemu-img bitmap --add disk.qcow2 b0',
    'qemu-img convert -n --target-is-zero': 'qemu-img create -q disk.img 16M',
}
# Lines that would write a gigabyte do the same with less.
SMALLER = (('--preallocation=full disk.qcow2 +1G', '--preallocation=full disk.qcow2 +8M'),
           ('cluster_size=2M disk.qcow2 1G', 'cluster_size=2M disk.qcow2 16M'),
           ('/dev/loopN', 'device.img'))
# Of each command, a line that is tried on images that are in a bad way, and the image.
TROUBLED = (
    ('qemu-img info disk.qcow2', 'disk.qcow2'),
    ('qemu-img info --output=json --backing-chain overlay.qcow2', 'base.qcow2'),
    ('qemu-img info -f qcow2 disk.qcow2', 'disk.qcow2'),
    ('qemu-img create -f raw disk.img 1M', 'disk.img'),
    ('qemu-img create -f qcow2 disk.qcow2 1M', 'disk.qcow2'),
    ('qemu-img create -f qcow2 -b base.qcow2 -F qcow2 new.qcow2', 'base.qcow2'),
    ('qemu-img convert -f qcow2 -O raw disk.qcow2 new.img', 'disk.qcow2'),
    ('qemu-img convert -O qcow2 disk.img disk.qcow2', 'disk.qcow2'),
    ('qemu-img convert -n -O qcow2 disk.img disk.qcow2', 'disk.qcow2'),
    ('qemu-img resize -f qcow2 disk.qcow2 40M', 'disk.qcow2'),
    ('qemu-img snapshot -l disk.qcow2', 'disk.qcow2'),
    ('qemu-img snapshot -c new disk.qcow2', 'disk.qcow2'),
    ('qemu-img commit -f qcow2 overlay.qcow2', 'overlay.qcow2'),
    ('qemu-img commit -f qcow2 overlay.qcow2', 'base.qcow2'),
    ('qemu-img rebase -f qcow2 -b base.qcow2 -F qcow2 top.qcow2', 'top.qcow2'),
    ('qemu-img rebase -f qcow2 -b a.qcow2 -F qcow2 top.qcow2', 'a.qcow2'),
    ('qemu-img check disk.qcow2', 'disk.qcow2'),
    ('qemu-img check -r all disk.qcow2', 'disk.qcow2'),
    ('qemu-img compare a.raw b.qcow2', 'b.qcow2'),
    ('qemu-img map --output=json disk.qcow2', 'disk.qcow2'),
    ('qemu-img measure -O qcow2 disk.img', 'disk.img'),
    ('qemu-img amend -f qcow2 -o compat=0.10 disk.qcow2', 'disk.qcow2'),
    ('qemu-img bitmap -f qcow2 --add disk.qcow2 new', 'disk.qcow2'),
    ('qemu-img dd if=disk.img of=part.img bs=1M count=1', 'disk.img'),
    ('qemu-img bench -c 4 -f qcow2 disk.qcow2', 'disk.qcow2'),
    ('qemu-io -c "read 0 64k" disk.qcow2', 'disk.qcow2'),
    ('qemu-io -f qcow2 -c "write 0 64k" disk.qcow2', 'disk.qcow2'),
)
TROUBLES = ('missing', 'no image', 'folder', 'empty', 'read-only', 'locked')


def lines():
    with open(LINES, encoding='utf-8') as file:
        return [line.strip() for line in file if not line.startswith('#')]


class Everyday(FolderTest):

    def setUp(self):
        super().setUp()
        self.need_reference_text()
        if harness.reference_io() is None:
            self.skipTest('no qemu-io')
        os.symlink(harness.ours('blockgraph-io'), self.path('.bin/qemu-io'))
        self.images = self.path('images')
        os.makedirs(os.path.join(self.images, 'moved'))
        data = b'x' * 65536 + bytes(1 << 20) + b'y' * 65536
        for name in ('disk.img', 'a.raw', 'device.img'):
            self.write('images/' + name, data, 16 << 20)
        for line in ('qemu-img convert -O qcow2 disk.img disk.qcow2',
                     'qemu-img snapshot -c snap1 disk.qcow2',
                     'qemu-io -c "write -P 5 2M 64k" disk.qcow2',
                     'qemu-img convert -O qcow2 disk.img base.qcow2',
                     'qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2',
                     'qemu-io -c "write -P 6 0 128k" overlay.qcow2',
                     'qemu-img create -q -f qcow2 -b overlay.qcow2 -F qcow2 top.qcow2',
                     'qemu-io -c "write -P 7 1M 64k" top.qcow2',
                     'qemu-img convert -O qcow2 a.raw b.qcow2'):
            self.assertEqual(self.run_line(line, self.images)[0], 0, line)
        for name, other in (('a.qcow2', 'b.qcow2'), ('running.qcow2', 'disk.qcow2'),
                            ('b.raw', 'a.raw'), ('moved/base.qcow2', 'base.qcow2')):
            copy(os.path.join(self.images, other), os.path.join(self.images, name))

    def run_line(self, line, folder, theirs=False, unprivileged=False):
        """(exit code, output, messages)"""
        name, *words = shlex.split(line)
        mine = self.path('.bin/' + name)
        program = {'qemu-img': harness.reference(), 'qemu-io': harness.reference_io()}[name] \
            if theirs else mine
        words = [program, *words]
        if unprivileged and os.geteuid() == 0:
            dropped = '-dac_override,-dac_read_search'
            words = ['setpriv', '--bounding-set', dropped, '--inh-caps', dropped, *words]
        result = harness.run(words[0], words[1:], folder)
        self.assertFalse(harness.crashed(result), '%s: %r' % (line, result))
        return (result.status, mask(self.plain(result.out)), mask(self.plain(result.err)))

    def folder_for(self, line):
        """A folder with the images that a line names, and those below and above them."""
        folder = tempfile.mkdtemp(dir=self.scratch)
        os.mkdir(os.path.join(folder, 'moved'))
        named = set(NAMES.findall(line))
        if named & {'overlay.qcow2', 'top.qcow2'}:
            named |= {'base.qcow2', 'overlay.qcow2'}
        for name in named:
            path = os.path.join(self.images, name)
            if os.path.exists(path):
                copy(path, os.path.join(folder, name))
        return folder

    def check_line(self, line):
        """None, or what is not the same."""
        for large, small in SMALLER:
            line = line.replace(large, small)
        folders = [self.folder_for(line) for _ in range(2)]
        for beginning, first in FIRST.items():
            if line.startswith(beginning):
                for folder in folders:
                    self.assertEqual(self.run_line(first, folder)[0], 0, first)
        mine, theirs = (self.run_line(line, folder, folder == folders[1]) for folder in folders)
        if line.endswith(('--version', '--help')):
            # In words of our own.
            mine, theirs = mine[:1], theirs[:1]
        if 'aio_' in line:
            # Who is ready first is a matter of luck.
            mine, theirs = ([one[0], *(sorted(text.split('\n')) for text in one[1:])]
                            for one in (mine, theirs))
        if mine != theirs:
            return '%s: %r\nreference: %r' % (line, mine, theirs)
        wrong = self.check_files(*folders)
        for folder in folders:
            shutil.rmtree(folder)
        return wrong and '%s: %s' % (line, wrong)

    def in_parallel(self, check, cases):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            wrong = [text for text in pool.map(check, cases) if text]
        self.assertFalse(wrong, '%d of %d:\n* %s' % (len(wrong), len(cases), '\n* '.join(wrong)))

    def test_every_line(self):
        self.in_parallel(self.check_line, lines())

    def check_trouble(self, case):
        line, image, trouble = case
        outcomes = []
        for theirs in (False, True):
            folder = self.folder_for(line)
            path = os.path.join(folder, image)
            if trouble in ('missing', 'folder') and os.path.exists(path):
                os.unlink(path)
            if trouble == 'folder':
                os.mkdir(path)
            if trouble in ('no image', 'empty'):
                with open(path, 'wb') as file:
                    file.write(b'no image of any kind. ' * 999 if trouble == 'no image' else b'')
            if trouble == 'read-only':
                os.chmod(path, 0o444)
            with Lock(path if trouble == 'locked' else None):
                outcomes.append(self.run_line(line, folder, theirs, trouble == 'read-only'))
            left = self.files(folder)
            outcomes[-1] += (sorted(left), left.get(image) if outcomes[-1][0] else None)
            shutil.rmtree(folder)
        mine, theirs = outcomes
        return None if mine == theirs else '%s, %s %s: %r\nreference: %r' % (
            line, image, trouble, mine, theirs)

    def test_images_in_a_bad_way(self):
        self.in_parallel(self.check_trouble, [(*case, trouble) for case in TROUBLED
                                              for trouble in TROUBLES])


if __name__ == '__main__':
    harness.main()
