# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs each option of tests/features/tools.txt: without it, with each of its spellings, and
with QEMU's program, each in a folder of its own that holds the same images.

What a run has come to: exit code, output, and the bytes of every file there is afterwards.
With and without the option that must differ; ours and QEMU's must be equal, with images of
qcow2 compared by what they hold. What takes time, and sizes on disk, are masked.
"""
import concurrent.futures
import os
import re
import shutil
import struct
import sys
import tempfile

import harness
from folders import FolderTest, Lock, copy, mask

sys.path.insert(0, os.path.join(harness.HERE, '..', 'features'))
import tools_table  # noqa: E402

# Commands that end the program by a signal.
DEADLY = ('io commands abort', 'io commands sigraise')


def patch(path, offset, data):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(data)


def leak_a_cluster(path):
    """A cluster at the end of a qcow2 file that is counted and that nothing leads to."""
    with open(path, 'rb') as file:
        data = file.read()
    bits, = struct.unpack_from('>I', data, 20)
    table, = struct.unpack_from('>Q', data, 48)
    block, = struct.unpack_from('>Q', data, table)
    clusters = (len(data) + (1 << bits) - 1) >> bits
    patch(path, block + 2 * clusters, b'\0\1')
    os.truncate(path, (clusters + 1) << bits)


def break_bitmaps(path):
    """Mark each bitmap as in use, which it stays when a program dies."""
    with open(path, 'rb') as file:
        data = file.read()
    extension = data.index(struct.pack('>II', 0x23852875, 24))
    count, _, size, offset = struct.unpack_from('>IIQQ', data, extension + 8)
    end = offset + size
    for _ in range(count):
        flags, = struct.unpack_from('>I', data, offset + 12)
        patch(path, offset + 12, struct.pack('>I', flags | 1))
        name, extra = struct.unpack_from('>HI', data, offset + 18)
        offset += 24 + extra + name + -(24 + extra + name) % 8
    assert offset <= end


def ascending(regex, trace):
    offsets = [int(number) for number in re.findall(regex, trace)]
    assert len(offsets) > 1, trace
    return 'ascending' if offsets == sorted(offsets) else 'not ascending'


class OptionTest(FolderTest):
    """Images that suffice for every run, and the runs."""

    def setUp(self):
        super().setUp()
        os.symlink(harness.ours('blockgraph-io'), self.path('.bin/qemu-io'))
        self.images = self.path('images')
        os.mkdir(self.images)
        self.write('images/a.raw', b'x' * 65536 + bytes(458752) + b'y' * 65536, 1 << 20)
        self.write('images/b.raw', b'z' * 65536, 1 << 20)
        self.write('images/longer.raw', self.read('images/a.raw'), 2 << 20)
        for words in ('convert -O qcow2 a.raw a.qcow2', 'convert -O qcow2 b.raw base.qcow2',
                      'create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2',
                      'create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2',
                      'convert -O qcow2 a.raw snap.qcow2', 'snapshot -c s1 snap.qcow2',
                      'convert -O qcow2 a.raw bits.qcow2', 'bitmap --add bits.qcow2 b0',
                      'bitmap --add bits.qcow2 b1', 'bitmap --add --disable bits.qcow2 off'):
            self.prepare('qemu-img', words)
        self.prepare('qemu-io', '-c "write -P 1 0 64k" bits.qcow2')
        self.prepare('qemu-io', '-c "write -P 2 128k 64k" snap.qcow2')
        self.prepare('qemu-io', '-c "write -P 3 64k 64k" mid.qcow2')
        self.prepare('qemu-io', '-c "write -P 4 128k 64k" top.qcow2')
        self.prepare('qemu-img', 'bitmap --clear bits.qcow2 b1')
        for name in ('bits2', 'badbits'):
            shutil.copy(self.path('images/bits.qcow2'), self.path('images/%s.qcow2' % name))
        self.prepare('qemu-img', 'bitmap --clear bits2.qcow2 b0')
        break_bitmaps(self.path('images/badbits.qcow2'))
        shutil.copy(self.path('images/a.qcow2'), self.path('images/leak.qcow2'))
        leak_a_cluster(self.path('images/leak.qcow2'))

    def prepare(self, name, words, folder=None):
        result = harness.run(self.path('.bin/' + name), tools_table.shlex.split(words),
                             folder or self.images)
        self.assertEqual(result.status, 0, '%s: %r' % (words, result))

    def program(self, option, theirs):
        if option.section.split()[0] == 'io':
            return harness.reference_io() if theirs else self.path('.bin/qemu-io')
        return harness.reference() if theirs else self.as_qemu

    def put_images(self, option, folder):
        """The images that a run names, and their backing files."""
        named = set(re.findall(r'\w+\.(?:raw|qcow2)', ' '.join(option.says.values())))
        if 'top.qcow2' in named:
            named |= {'mid.qcow2', 'base.qcow2'}
        for name in named & set(os.listdir(self.images)):
            copy(os.path.join(self.images, name), os.path.join(folder, name))

    def run_words(self, option, words, theirs=False):
        """(folder, exit code, output, messages) of a run in a folder of its own."""
        folder = tempfile.mkdtemp(dir=self.scratch)
        self.put_images(option, folder)
        if 'first' in option.says:
            self.prepare('qemu-img', option.says['first'], folder)
        trace = [] if theirs or 'trace' not in option.says else ['-T', option.says['trace']]
        locked = option.says.get('locked')
        with Lock(locked and os.path.join(folder, locked)):
            result = harness.run(self.program(option, theirs), trace + words, folder)
        self.assertFalse(harness.crashed(result) and not theirs and option.name not in DEADLY,
                         '%s: %r' % (words, result))
        shown = [result]
        if 'then' in option.says:
            shown.append(harness.run(self.program(option, theirs) if option.section[:3] == 'img'
                                     else self.as_qemu, option.says['then'].split(), folder))
        if trace and 'ascending' in option.says:
            result.err = ascending(option.says['ascending'], result.err)
        return (folder, [one.status for one in shown],
                [mask(self.plain(text)) for one in shown for text in (one.out, one.err)])

    def outcome(self, option, words, keep=None):
        """(exit codes, output, files): what must differ with and without an option.

        The folder is put into the list `keep`, or deleted."""
        folder, *told = self.run_words(option, words)
        # A command that looks at the files leaves out what is of the moment.
        files = {} if 'then' in option.says else self.files(folder)
        if keep is None:
            shutil.rmtree(folder)
        else:
            keep.append(folder)
        return (*told, files)

    def check_option(self, option):
        """None, or what is wrong."""
        if option.state == 'missing':
            return None
        kept = []
        without = self.outcome(option, option.words())
        with_it = self.outcome(option, option.words(option.spellings[0]), kept)
        for spelling in option.spellings[1:]:
            again = self.outcome(option, option.words(spelling))
            if again != with_it:
                return 'spelled %s: %r, not %r' % (spelling, again[:2], with_it[:2])
        if (without == with_it) != (option.state == 'accepted'):
            return 'without and with it: %r, %r' % (without[:2], with_it[:2])
        if option.state == 'refused':
            return self.check_refused(option, with_it)
        return self.check_against_reference(option, with_it, kept[0])

    @staticmethod
    def check_refused(option, outcome):
        """An error names the option, or the group that it is of."""
        named = tools_table.DIFFERENCE.search(option.says['run']).group(1).split()[-1]
        named = named.partition('=')[0].partition('.')[0][:7]
        said = ''.join(outcome[1])
        if outcome[0][0] == 1 and (named in said or 'not supported' in said):
            return None
        return 'not refused by name: %r' % (outcome[:2],)

    def check_against_reference(self, option, mine, folder):
        alike = option.says.get('alike')
        if not self.compares_text or alike == 'nothing' or \
                self.program(option, True) is None:
            return None
        reference, *theirs = self.run_words(option, option.words(option.spellings[0]), True)
        if mine[0] != theirs[0]:
            return 'exit codes: %r, reference %r' % (mine[:2], theirs)
        if alike == 'exit code':
            return None
        if 'trace' not in option.says and mine[1] != theirs[1]:
            return 'output %r\nreference %r' % (mine[1], theirs[1])
        return self.check_files(folder, reference)

    def check_program(self, program):
        """All options of a program, on all cores."""
        options = [option for section, some in tools_table.load() for option in some
                   if section.split()[0] == program]
        self.assertTrue(options)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            outcomes = list(pool.map(self.check_option, options))
        wrong = ['* %s: %s' % (option.name, text)
                 for option, text in zip(options, outcomes) if text]
        self.assertFalse(wrong, '%d of %d options:\n%s' % (len(wrong), len(options),
                                                           '\n'.join(wrong)))
