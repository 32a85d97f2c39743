#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img convert and dd to qcow2: what QEMU finds whole, equal and of the same shape."""
import json
import os
import random
import re
import signal
import subprocess

import content
import harness

SIZE = 5 << 20

# Create options of which each gives another shape on disk.
SHAPES = (
    '', 'compat=0.10', 'compat=v3', 'cluster_size=512', 'cluster_size=4k', 'cluster_size=2M',
    'extended_l2=on', 'extended_l2=on,cluster_size=16k', 'extended_l2=on,cluster_size=2M',
    'lazy_refcounts=on', 'refcount_bits=1', 'refcount_bits=2', 'refcount_bits=4',
    'refcount_bits=8', 'refcount_bits=16', 'refcount_bits=32', 'refcount_bits=64',
    'data_file=%s.data', 'data_file=%s.data,data_file_raw=on',
    'data_file=%s.data,extended_l2=on', 'preallocation=metadata', 'preallocation=falloc',
    'preallocation=full', 'preallocation=metadata,extended_l2=on',
    'compression_type=zstd', 'nocow=on',
)
# For a quick run, and the sanitizers.
QUICK = ('', 'compat=0.10', 'cluster_size=512', 'extended_l2=on,cluster_size=16k',
         'refcount_bits=1', 'data_file=%s.data,data_file_raw=on', 'preallocation=full',
         'compression_type=zstd')
COMPRESSED_SHAPES = (
    '', 'compat=0.10', 'cluster_size=512', 'cluster_size=4k', 'cluster_size=2M',
    'compression_type=zstd', 'compression_type=zstd,cluster_size=2M', 'extended_l2=on',
    'extended_l2=on,compression_type=zstd', 'lazy_refcounts=on', 'refcount_bits=8',
    'refcount_bits=64',
)


def chosen(shapes):
    return [options for options in shapes if options in QUICK or not harness.quick_run()]


class ConvertToQcow2Test(harness.ToolTest):

    def setUp(self):
        super().setUp()
        dice = random.Random(7)
        words = [bytes(dice.randbytes(12)) for _ in range(200)]
        text = b''.join(dice.choice(words) for _ in range(100000))
        # Runs of data that compresses, data that does not, zeros in a file, and holes.
        with open(self.path('a.raw'), 'wb') as file:
            file.truncate(SIZE)
            for offset, data in ((0, b'boot' * 128), (65536 - 512, text[:300000]),
                                 (1 << 20, dice.randbytes(200000)), (2 << 20, bytes(1 << 19)),
                                 (3 << 20, text), (SIZE - 3 * 512, b'end!' * 384)):
                file.seek(offset)
                file.write(data)

    def ok(self, result):
        self.assertEqual(result.status, 0, result)
        return result

    def check_whole(self, name, source='a.raw', source_format='raw'):
        """The image is whole and has the source's content: says QEMU, and we say so, too."""
        for program in (self.qemu, self.img) if harness.reference() else (self.img,):
            self.ok(program('check', '-f', 'qcow2', name))
            self.ok(program('compare', '-f', source_format, '-F', 'qcow2', source, name))

    def guest_map(self, name):
        """What the image stores, whatever the order in its file: [start, length, what]."""
        result = self.ok(self.img('map', '-f', 'qcow2', '--output=json', name))
        runs = []
        for entry in json.loads(result.out):
            what = (entry['depth'], entry['present'], entry['compressed'])
            if runs and runs[-1][2] == what:
                runs[-1][1] += entry['length']
            else:
                runs.append([entry['start'], entry['length'], what])
        return runs

    def convert_both(self, *args, options='', target='qcow2', source='a.raw'):
        """Convert with ours and with QEMU; both are whole, and store the same ranges."""
        for program, name in ((self.img, 'ours'), (self.qemu, 'theirs')):
            full = ['-o', options.replace('%s', name)] if options else []
            self.ok(program('convert', '-O', target, *args, *full, source, name))
        self.check_whole('ours')
        self.assertEqual(self.guest_map('ours'), self.guest_map('theirs'), (args, options))

    def sizes_are_close(self, percent, slack):
        mine, theirs = (os.path.getsize(self.path(name)) for name in ('ours', 'theirs'))
        self.assertLess(abs(mine - theirs), theirs * percent / 100 + slack, (mine, theirs))

    def test_every_shape(self):
        self.need_reference_text()
        for options in chosen(SHAPES):
            with self.subTest(options):
                self.convert_both('-f', 'raw', options=options)
                self.sizes_are_close(2, 4 << 20 if '2M' in options else 1 << 18)
                self.assertEqual(self.shape('ours'), self.shape('theirs'))

    def shape(self, name):
        info = json.loads(self.ok(self.qemu('info', '--output=json', name)).out)
        data = dict(info['format-specific']['data'])
        data.pop('data-file', None)
        return info['virtual-size'], info['cluster-size'], data

    def test_every_compressed_shape(self):
        self.need_reference_text()
        for options in chosen(COMPRESSED_SHAPES):
            with self.subTest(options):
                self.ok(self.img('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o',
                                 options or 'compat=1.1', 'a.raw', 'ours'))
                self.check_whole('ours')
                self.ok(self.qemu('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o',
                                  options or 'compat=1.1', 'a.raw', 'theirs'))
                self.sizes_are_close(3, 4 << 20 if '2M' in options else 1 << 17)
                self.assertTrue(any(run[2][2] for run in self.guest_map('ours')))

    def test_compressed_by_any_number_of_coroutines_in_any_order(self):
        self.need_reference()
        for args in (['-m', '1'], ['-m', '16'], ['-W'], ['-m', '16', '-W'], ['-S', '0'],
                     ['-S', '64k'], ['-t', 'none', '-W'], ['-t', 'writethrough'], ['-r', '50M']):
            with self.subTest(args):
                self.ok(self.img('convert', '-c', *args, '-f', 'raw', '-O', 'qcow2', 'a.raw',
                                 'ours'))
                self.check_whole('ours')

    def test_zeros_are_left_out_as_told(self):
        self.need_reference()
        for args in (['-S', '0'], ['-S', '512'], ['-S', '4k'], ['-S', '1M'], ['-m', '16', '-W']):
            with self.subTest(args):
                self.convert_both('-f', 'raw', *args)

    def test_existing_target_is_written_over(self):
        self.need_reference()
        self.write('full.raw', b'\xff' * SIZE)
        for options, args in (('compat=1.1', []), ('compat=0.10', ['-c']), ('compat=0.10', []),
                              ('extended_l2=on', ['-W']), ('lazy_refcounts=on', ['-c', '-W']),
                              ('compat=1.1', ['-S', '0'])):
            with self.subTest((options, args)):
                self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', '-o', options, 'full.raw',
                                 'ours'))
                self.ok(self.img('convert', '-n', *args, '-f', 'raw', '-O', 'qcow2', 'a.raw',
                                 'ours'))
                self.check_whole('ours')

    def test_overlay_of_a_chain_keeps_its_backing_file(self):
        self.need_reference()
        self.ok(self.img('create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw', 'top.qcow2'))
        self.ok(self.img('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'top.qcow2'))
        self.check_whole('top.qcow2')
        self.ok(self.img('convert', '-O', 'qcow2', '-f', 'raw', 'a.raw', 'base.qcow2'))
        self.ok(self.img('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2',
                         'top.qcow2', str(SIZE + (1 << 20))))
        io = harness.reference_io()
        if io is None:
            self.skipTest('no qemu-io')
        self.ok(harness.run(io, ['-f', 'qcow2', '-c', 'write -P 9 1M 200k', '-c',
                                 'write -z 3M 300k', '-c', 'write -P 8 5M 10k', 'top.qcow2'],
                            self.scratch))
        for args in (['-B', 'base.qcow2', '-F', 'qcow2'], ['-c', '-B', 'base.qcow2', '-F', 'qcow2'],
                     ['-o', 'backing_file=base.qcow2,backing_fmt=qcow2'],
                     ['-B', 'base.qcow2', '-F', 'qcow2', '-o', 'extended_l2=on']):
            with self.subTest(args):
                for program, name in ((self.img, 'ours'), (self.qemu, 'theirs')):
                    self.ok(program('convert', '-f', 'qcow2', '-O', 'qcow2', *args, 'top.qcow2',
                                    name))
                self.check_whole('ours', 'top.qcow2', 'qcow2')
                self.assertEqual(self.guest_map('ours'), self.guest_map('theirs'))
                info = json.loads(self.ok(self.img('info', '--output=json', 'ours')).out)
                self.assertEqual(info['backing-filename'], 'base.qcow2')

    def test_from_every_format_and_several_sources(self):
        self.need_reference()
        self.write('odd.raw', b'odd' * 1001)
        self.write('sum.raw', self.read('odd.raw') + bytes(-3003 % 512) + self.read('a.raw') +
                   self.read('odd.raw'))
        for args in ([], ['-c'], ['-c', '-o', 'cluster_size=2M'], ['-S', '0']):
            self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', *args, 'odd.raw', 'a.raw',
                             'odd.raw', 'ours'))
            self.check_whole('ours', 'sum.raw')
        for size in (0, 1, 511, 513, 65535, 65537):
            self.write('size.raw', b'\x55' * size)
            for args in ([], ['-c']):
                self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', *args, 'size.raw', 'ours'))
                self.check_whole('ours', 'size.raw')

        def check(image):
            name = self.path(image['name'].replace('/', '-') + '.out')
            self.ok(self.img('convert', '-O', 'qcow2', '-c', *harness.source(image), name,
                             cwd=harness.Corpus.folder))
            self.ok(self.qemu('check', '-q', name))
            self.ok(self.img('convert', '-O', 'raw', name, name + '.raw'))
            self.assertEqual(content.sha256(name + '.raw'), image['sha256'])
            os.unlink(name)
            os.unlink(name + '.raw')
        self.for_images(check, lambda image: image['expect'] == 'ok' and
                        image['sha256'] is not None and 'huge' not in image['tags'] and
                        image['virtual_size'] <= 64 << 20)

    def test_a_huge_disk_costs_what_it_holds(self):
        self.need_reference()
        self.ok(self.img('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', 'huge.qcow2',
                         '63T'))
        for args in (['-o', 'cluster_size=2M'], ['-c', '-o', 'cluster_size=2M']):
            self.ok(self.img('convert', '-O', 'qcow2', *args, 'huge.qcow2', 'ours'))
            self.ok(self.qemu('check', '-q', 'ours'))
            self.assertLess(os.stat(self.path('ours')).st_blocks * 512, 16 << 20)

    def bitmaps(self, name):
        info = json.loads(self.ok(self.qemu('info', '--output=json', name)).out)
        return info['format-specific']['data'].get('bitmaps')

    def test_bitmaps_are_copied(self):
        self.need_reference_text()
        self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2'))
        self.ok(self.img('bitmap', '--add', '-g', '64k', 'a.qcow2', 'one'))
        self.ok(self.img('bitmap', '--add', '--disable', 'a.qcow2', 'two'))
        self.ok(self.img('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2'))
        for program, name in ((self.img, 'ours'), (self.qemu, 'theirs')):
            self.ok(program('convert', '--bitmaps', '-O', 'qcow2', 'a.qcow2', name))
        self.assertEqual(self.bitmaps('ours'), self.bitmaps('theirs'))
        self.assertEqual(len(self.bitmaps('ours')), 2)
        # QEMU merges what we stored into what it stored, and finds nothing wrong.
        self.ok(self.qemu('bitmap', '--merge', 'one', '-b', 'ours', '-F', 'qcow2', 'theirs',
                          'two'))
        self.check_whole('ours')
        result = self.img('convert', '--bitmaps', '-n', '-O', 'qcow2', 'a.qcow2', 'ours')
        self.assertEqual(result.status, 1, result)
        self.assertIn('Bitmap already exists: one', result.err)
        for args in (['a.qcow2', 'a.qcow2', 'out'], ['-f', 'raw', 'a.raw', 'out']):
            self.check_same('convert', '--bitmaps', '-O', 'qcow2', *args)
        self.check_same('convert', '--skip-broken-bitmaps', '-O', 'qcow2', 'a.qcow2', 'out')

    def test_dd_to_qcow2(self):
        self.need_reference()
        for program, name in ((self.img, 'ours'), (self.qemu, 'theirs')):
            self.ok(program('dd', '-f', 'raw', '-O', 'qcow2', 'bs=64k', 'skip=3', 'count=100',
                            'if=a.raw', 'of=' + name))
        self.ok(self.qemu('check', '-q', 'ours'))
        self.ok(self.img('compare', '-f', 'qcow2', '-F', 'qcow2', 'ours', 'theirs'))

    def test_create_over_an_existing_image_leaves_nothing_of_it(self):
        self.need_reference()
        self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'ours'))
        self.ok(self.img('create', '-q', '-f', 'qcow2', 'ours', '4M'))
        self.write('zero.raw', size=4 << 20)
        self.check_whole('ours', 'zero.raw')
        self.assertLess(os.path.getsize(self.path('ours')), 1 << 20)

    def test_what_cannot_be_is_refused_as_by_qemu(self):
        self.need_reference_text()
        self.ok(self.img('create', '-q', '-f', 'qcow2', 'base.qcow2', str(SIZE)))
        for args in (['-c', '-o', 'preallocation=full'], ['-c', '-o', 'preallocation=metadata'],
                     ['-B', 'base.qcow2'], ['-o', 'backing_file=base.qcow2'], ['-F', 'qcow2'],
                     ['-B', 'missing', '-F', 'qcow2'], ['-o', 'cluster_size=3k'],
                     ['-o', 'compression_type=zstd,compat=0.10'],
                     ['-o', 'extended_l2=on,cluster_size=4k'], ['-o', 'refcount_bits=3'],
                     ['-B', 'base.qcow2', '-F', 'qcow2', 'a.raw'], ['-c', '-C'],
                     ['-c', '-o', 'encryption=on']):
            self.check_same('convert', '-f', 'raw', '-O', 'qcow2', *args, 'a.raw', 'out')
        for args in (['-O', 'bochs'], ['-c', '-O', 'raw'], ['-c']):
            self.check_same('convert', '-f', 'raw', *args, 'a.raw', 'out')
        self.check_same('convert', '-n', '-c', '-f', 'raw', '-O', 'raw', 'a.raw', 'a.raw2')

    def test_target_is_zero_is_refused_with_a_backing_file(self):
        self.ok(self.img('create', '-q', '-f', 'qcow2', 'ours', str(SIZE)))
        result = self.img('convert', '-n', '--target-is-zero', '-f', 'raw', '-O', 'qcow2', '-B',
                          'ours', 'a.raw', 'ours')
        self.assertEqual(result.status, 1, result)
        self.assertIn('Cannot use --target-is-zero', result.err)

    def test_source_is_not_overwritten(self):
        self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2'))
        before = self.read('a.qcow2')
        os.link(self.path('a.qcow2'), self.path('link.qcow2'))
        for target in ('a.qcow2', './a.qcow2', 'link.qcow2', 'file:a.qcow2'):
            for args in ([], ['-c'], ['-n']):
                result = self.img('convert', '-f', 'qcow2', '-O', 'qcow2', *args, 'a.qcow2', target)
                self.assertEqual(result.status, 1, result)
        self.assertEqual(self.read('a.qcow2'), before)

    def test_no_permission_is_told_with_the_name(self):
        os.mkdir(self.path('closed'), 0o500)
        result = self.img_without_privilege('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw',
                                            'closed/out')
        self.assertEqual(result.status, 1, result)
        self.assertIn('closed/out', result.err)
        self.assertIn('Permission denied', result.err)

    def test_a_full_disk_is_told_with_the_place(self):
        for args in ([], ['-c', '-o', 'cluster_size=4k'], ['-W'], ['-c', '-W']):
            size = os.path.getsize(self.path('a.raw')) // 8
            command = 'ulimit -f %d; trap "" XFSZ; exec "$@"' % (size // 1024)
            result = harness.run('bash', ['-c', command, 'bash', self.as_qemu, 'convert', '-f',
                                          'raw', '-O', 'qcow2', *args, 'a.raw', 'out'],
                                 self.scratch)
            self.assertEqual(result.status, 1, result)
            self.assertRegex(result.err, r'out.*(byte \d+|flush).*: File too large')

    def test_a_signal_ends_it(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen([self.as_qemu, 'convert', '-p', '-r', '1M', '-f', 'raw', '-O',
                                   'qcow2', 'a.raw', 'out'], cwd=self.scratch,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                process.stdout.read(1)  # it is at work
                process.send_signal(number)
                process.communicate(timeout=harness.TIMEOUT)
            self.assertEqual(process.returncode, -number)
            self.assertRegex(self.img('check', 'out').out, r'errors|leak')
            # What was left is written over by the next.
            self.ok(self.img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'out'))
            self.check_whole('out')

    def test_progress_ends_at_all(self):
        for args in ([], ['-c'], ['-W']):
            result = self.ok(self.img('convert', '-p', '-f', 'raw', '-O', 'qcow2', *args, 'a.raw',
                                      'out'))
            parts = [float(n) for n in re.findall(r'\((\d+\.\d\d)/100%\)', result.out)]
            self.assertEqual(parts, sorted(parts))
            self.assertEqual(parts[-1], 100)


if __name__ == '__main__':
    harness.main()
