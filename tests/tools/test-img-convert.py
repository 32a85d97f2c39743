#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img convert to raw: the bytes are those of qemu-img convert."""
import itertools
import os
import re
import signal
import subprocess

import content
import harness

SIZE = 8 << 20


class ConvertTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.data = bytes(range(256)) * 1200
        self.write('a.raw', b'\0' * 8192 + self.data, size=SIZE)

    def content(self, image, *args, env=None):
        """Convert an image of the corpus with ours; its digest."""
        output = self.path(image['name'].replace('/', '-') + '.out')
        result = self.img('convert', *args, '-O', 'raw', *harness.source(image), output,
                          cwd=harness.Corpus.folder, env=env)
        self.assertEqual(result.status, 0, result)
        self.assertEqual(os.path.getsize(output), image['virtual_size'])
        found = content.sha256(output)
        os.unlink(output)
        return found

    @staticmethod
    def readable(image):
        return image['expect'] in ('ok', 'check') and image['sha256'] is not None and \
            'huge' not in image['tags']

    def test_every_image(self):
        def check(image):
            self.assertEqual(self.content(image), image['sha256'])
        self.for_images(check, self.readable)

    @harness.on_disk
    def test_every_image_on_both_engines_cached_and_direct(self):
        ways = list(itertools.product(harness.ENGINES, ('writeback', 'none')))

        def check(image):
            for engine, cache in harness.each_or_one(ways, image['name']):
                found = self.content(image, '-T', cache, '-t', cache, '-W', '--aio', engine)
                self.assertEqual(found, image['sha256'], (engine, cache))
        self.for_images(check, self.readable)

    def test_every_snapshot(self):
        def check(image):
            for name, expected in image['snapshots'].items():
                output = self.path(image['name'] + '.out')
                for choice in (name, 'snapshot.name=' + name):
                    result = self.img('convert', '-l', choice, '-O', 'raw',
                                      *harness.source(image), output, cwd=harness.Corpus.folder)
                    self.assertEqual(result.status, 0, result)
                    self.assertEqual(os.path.getsize(output), image['virtual_size'])
                    self.assertEqual(content.sha256(output), expected, choice)
        self.for_images(check, lambda image: image['snapshots'] and image['expect'] == 'ok')

    def test_holes_stay_holes(self):
        def check(image):
            output = self.path(image['name'] + '.out')
            result = self.img('convert', '-O', 'raw', *harness.source(image), output,
                              cwd=harness.Corpus.folder)
            self.assertEqual(result.status, 0, result)
            self.assertEqual(os.path.getsize(output), image['virtual_size'])
            self.assertLess(os.stat(output).st_blocks * 512, 64 << 20)
            os.unlink(output)
        self.for_images(check, lambda image: 'huge' in image['tags'] and
                        image['virtual_size'] < 15 << 40)

    def test_damaged_image_fails_with_a_reason(self):
        def check(image):
            output = self.path(image['name'] + '.out')
            args = ['convert', '-O', 'raw', *harness.source(image), output]
            mine = self.img(*args, cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(mine), mine)
            if image['expect'] in ('refuse', 'eio', 'info'):
                self.assertEqual(mine.status, 1, mine)
                self.assertIn(os.path.basename(image['file']), mine.err)
            if image['expect'] == 'eio':
                self.assertRegex(mine.err, r'(offset|byte) \d+')
        self.for_images(check, lambda image: image['expect'] in ('refuse', 'eio', 'info',
                                                                 'bounded', 'loop'))

    def compare_with_reference(self, *args):
        """Both convert; same messages, same bytes."""
        mine = self.check_same('convert', *args, 'out.raw')
        self.img('convert', *args, 'out.raw')
        content = self.read('out.raw') if os.path.exists(self.path('out.raw')) else None
        if content is not None:
            os.unlink(self.path('out.raw'))
        self.qemu('convert', *args, 'out.raw')
        if content is not None:
            self.assertEqual(content, self.read('out.raw'), args)
            os.unlink(self.path('out.raw'))
        return mine

    def test_options(self):
        self.need_reference()
        for args in ([], ['-p'], ['-q', '-p'], ['-m', '1'], ['-m', '16', '-W'], ['-W', '-p'],
                     ['-S', '0'], ['-S', '512'], ['-S', '64k'], ['-S', '1M'], ['-r', '50M'],
                     ['-r', '0'], ['-C'], ['-t', 'writethrough'], ['-t', 'none', '-T', 'none'],
                     ['-t', 'directsync'], ['-t', 'unsafe'], ['-T', 'writeback'], ['-O', 'raw'],
                     ['-o', 'preallocation=full'], ['-o', 'preallocation=falloc'],
                     ['-o', 'size=1M'], ['-U'], ['--salvage']):
            result = self.compare_with_reference('-f', 'raw', *args, 'a.raw')
            self.assertEqual(result.status, 0, (args, result))

    def offloaded(self, *args):
        """Convert with -C; the bytes that the kernel copied."""
        result = self.img('-T', 'bdrv_co_copy_range', 'convert', '-C', *args, 'out.raw')
        self.assertEqual(result.status, 0, result)
        done = re.findall(r'bdrv_co_copy_range .* bytes=(\d+) ret=0', result.err)
        return sum(int(size) for size in done)

    def test_offload(self):
        """-C has the kernel copy what is data, and nothing else."""
        self.write('b.raw', b'x' * 65536 + bytes(1 << 20) + b'y' * 65536, size=SIZE)
        # What reads as zeros and is stored is copied, too.
        self.assertEqual(self.offloaded('-f', 'raw', 'b.raw'), (1 << 20) + 2 * 65536)
        self.assertEqual(self.read('out.raw'), self.read('b.raw'))
        self.assertEqual(self.offloaded('-f', 'raw', '--digest', 'md5', 'b.raw'), 0)
        self.img('convert', '-f', 'raw', '-O', 'qcow2', 'b.raw', 'b.qcow2')
        self.assertEqual(self.offloaded('b.qcow2', '-W'), 2 * 65536)
        self.assertEqual(self.read('out.raw'), self.read('b.raw'))
        self.img('convert', '-c', '-f', 'raw', '-O', 'qcow2', 'b.raw', 'b.qcow2')
        self.assertEqual(self.offloaded('b.qcow2'), 0)
        self.assertEqual(self.read('out.raw'), self.read('b.raw'))

    def test_several_sources(self):
        self.need_reference()
        for size in (0, 1, 513, 70000):
            self.write('%d.raw' % size, bytes([size % 255 + 1]) * size)
        for names in (['1.raw', '513.raw'], ['0.raw', 'a.raw', '1.raw'], ['0.raw'], ['1.raw'],
                      ['70000.raw', '70000.raw'], ['0.raw', '0.raw']):
            self.compare_with_reference('-f', 'raw', *names)

    def test_existing_target(self):
        self.write('out.raw', b'\xff' * SIZE)
        result = self.img('convert', '-f', 'raw', '-n', 'a.raw', 'out.raw')
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.read('out.raw'), self.read('a.raw'))

    def test_existing_target_keeps_what_is_behind_the_source(self):
        self.write('out.raw', b'\xff' * (SIZE + 100000))
        result = self.img('convert', '-f', 'raw', '-n', 'a.raw', 'out.raw')
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.read('out.raw')[:SIZE], self.read('a.raw'))
        self.assertEqual(self.read('out.raw')[SIZE:], b'\xff' * 99840 + b'\xff' * 160)

    def test_target_said_to_be_zero_gets_data_only(self):
        self.write('out.raw', b'\xff' * SIZE)
        result = self.img('convert', '-f', 'raw', '-n', '--target-is-zero', 'a.raw', 'out.raw')
        self.assertEqual(result.status, 0, result)
        out = self.read('out.raw')
        self.assertEqual(out[8192:8192 + len(self.data)], self.data)
        self.assertEqual(out[-4096:], b'\xff' * 4096)

    def test_target_options(self):
        self.write('out.raw', size=SIZE)
        result = self.img('convert', '-f', 'raw', '-n', '--target-image-opts', 'a.raw',
                          'driver=raw,file.filename=out.raw')
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.read('out.raw'), self.read('a.raw'))

    def test_longer_target_is_cut(self):
        self.write('out.raw', b'\xff' * (SIZE * 2))
        result = self.img('convert', '-f', 'raw', 'a.raw', 'out.raw')
        self.assertEqual(result.status, 0, result)
        self.assertEqual(self.read('out.raw'), self.read('a.raw'))

    def test_source_is_not_overwritten(self):
        before = self.read('a.raw')
        os.link(self.path('a.raw'), self.path('link.raw'))
        os.symlink('a.raw', self.path('symlink.raw'))
        for target in ('a.raw', './a.raw', 'link.raw', 'symlink.raw', 'file:a.raw'):
            for args in ([], ['-n']):
                result = self.img('convert', '-f', 'raw', *args, 'a.raw', target)
                self.assertEqual(result.status, 1, (target, result))
                self.assertIn(target, result.err)
        self.assertEqual(self.read('a.raw'), before)

    def test_source_is_not_a_target_by_its_drivers_name(self):
        result = self.img('convert', '-f', 'raw', 'a.raw', 'host_device:a.raw')
        self.assertEqual(result.status, 1, result)
        self.assertIn("is a file of the source 'a.raw'", result.err)

    def test_options_cut_short(self):
        """What QEMU takes is not ambiguous because of options that are ours alone."""
        for args in (['--c'], ['--for'], ['--p', '4'], ['--r', '1G']):
            result = self.img('convert', '-f', 'raw', *args, 'a.raw', 'ours')
            self.assertEqual((result.status, result.out, result.err), (0, '', ''), args)
            self.assertEqual(self.read('ours'), self.read('a.raw'))
            if harness.reference_version() >= (10, 0):
                self.make('convert', '-f', 'raw', *args, 'a.raw', 'theirs')
        # Where QEMU has none of that name, ours is meant, though --progress-fd is not.
        result = self.img('convert', '--form', 'raw', '--prog', 'a.raw', 'ours')
        self.assertEqual((result.status, result.err), (0, ''), result)
        self.assertIn('100.00', result.out)

    def test_backing_file_is_not_overwritten(self):
        self.make('create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw', 'top.qcow2')
        before = self.read('a.raw')
        result = self.img('convert', 'top.qcow2', 'a.raw')
        self.assertEqual(result.status, 1, result)
        self.assertEqual(self.read('a.raw'), before)

    def test_wrong_usage(self):
        self.need_reference_text()
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        for args in ([], ['a.raw'], ['missing', 'out'], ['-f', 'raw', 'a.raw', 'nosuchdir/x'],
                     ['-O', 'nosuch', 'a.raw', 'out'], ['-O', 'bochs', 'a.raw', 'out'],
                     ['-f', 'nosuch', 'a.raw', 'out'], ['-f', 'bochs', 'a.raw', 'out'],
                     ['-o', 'foo=1', 'a.raw', 'out'], ['-c', '-O', 'raw', 'a.raw', 'out'],
                     ['-S', '1', 'a.raw', 'out'], ['-S', '511', 'a.raw', 'out'],
                     ['-S', '4G', 'a.raw', 'out'], ['-S', 'foo', 'a.raw', 'out'],
                     ['-m', '0', 'a.raw', 'out'], ['-m', '17', 'a.raw', 'out'],
                     ['-m', 'foo', 'a.raw', 'out'], ['-r', 'foo', 'a.raw', 'out'],
                     ['-l', 'nosuch', 'a.qcow2', 'out'],
                     ['-l', 'snapshot.id=9', 'a.qcow2', 'out'],
                     ['-l', 'snapshot.foo=1', 'a.qcow2', 'out'],
                     ['-l', 'nosuch', '-f', 'raw', 'a.raw', 'out'],
                     ['-C', '-S', '4k', 'a.raw', 'out'], ['-C', '--salvage', 'a.raw', 'out'],
                     ['-B', 'x', 'a.raw', 'out'],
                     ['-B', 'x', '-F', 'raw', 'a.raw', 'out'],
                     ['-t', 'foo', 'a.raw', 'out'], ['-T', 'foo', 'a.raw', 'out'],
                     ['--target-is-zero', 'a.raw', 'out'], ['--bitmaps', 'a.qcow2', 'out'],
                     ['--target-image-opts', 'a.raw', 'driver=raw,file.filename=out'],
                     ['-n', '-f', 'raw', 'a.raw', 'missing'],
                     ['-n', '-f', 'raw', 'a.raw', 'a.qcow2'],
                     ['-n', '-o', 'size=1', 'a.raw', 'out'],
                     ['-o', 'help', 'a.raw', 'out'], ['-o', 'help', '-O', 'raw'],
                     ['-a', 'a.raw', 'out'], ['--nosuch', 'a.raw', 'out']):
            if os.path.exists(self.path('out')):
                os.unlink(self.path('out'))
            self.check_same('convert', *args)

    def test_format_without_writer_is_refused_by_name(self):
        result = self.img('convert', '-f', 'raw', '-O', 'bochs', 'a.raw', 'out.bochs')
        self.assertEqual(result.status, 1)
        self.assertIn("'bochs' does not support image creation", result.err)

    @staticmethod
    def catches_sigusr1(pid):
        with open('/proc/%d/status' % pid, encoding='ascii') as file:
            caught = re.search(r'^SigCgt:\s*(\w+)', file.read(), re.MULTILINE).group(1)
        return int(caught, 16) >> (signal.SIGUSR1 - 1) & 1

    @staticmethod
    def ignores_sigusr1(pid):
        with open('/proc/%d/status' % pid, encoding='ascii') as file:
            ignored = re.search(r'^SigIgn:\s*(\w+)', file.read(), re.MULTILINE).group(1)
        return int(ignored, 16) >> (signal.SIGUSR1 - 1) & 1

    def run_with_signal(self, *args, ready):
        """Convert slowly, and send SIGUSR1 once the program is ready for it."""
        self.write('big.raw', b'\1' * (3 << 20))
        with subprocess.Popen([self.as_qemu, 'convert', '-f', 'raw', '-r', '1M', *args, 'big.raw',
                               'out.raw'], cwd=self.scratch, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as process:
            while not ready(process.pid):
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGUSR1)
            out, err = process.communicate(timeout=harness.TIMEOUT)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(self.read('out.raw'), self.read('big.raw'))
        return out, err

    def test_signal_prints_one_line(self):
        out, err = self.run_with_signal(ready=self.catches_sigusr1)
        self.assertEqual(out, '')
        self.assertRegex(err, r'^    \(\d+\.\d\d/100%\)\n$')

    def test_quiet_silences_the_signal(self):
        self.assertEqual(self.run_with_signal('-q', ready=self.ignores_sigusr1), ('', ''))


if __name__ == '__main__':
    harness.main()
