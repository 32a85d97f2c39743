#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img convert from standard input and to standard output, --digest, and
--progress-fd: what comes out is the disk, whichever way it went."""
import hashlib
import json
import os
import resource
import subprocess

import harness

MIB = 1 << 20
LENGTH = 9 * MIB + 512


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * LENGTH, 8 * LENGTH))


class StreamTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        block = bytes(range(251)) * 261  # 65,511 bytes: nothing is aligned
        self.data = (bytes(70000) + block + bytes(3 * MIB) + block * 20).ljust(LENGTH, b'\0')
        with open(self.path('a.raw'), 'wb') as file:
            for offset in range(0, LENGTH, 65536):
                piece = self.data[offset:offset + 65536]
                file.seek(offset)
                if piece.strip(b'\0'):
                    file.write(piece)  # what is zeros is a hole
            file.truncate(LENGTH)

    def pipe(self, *args, data=b'', status=0, more=None, **options):
        """Run ours with `data` in a pipe; (its standard output, its standard error)."""
        done = subprocess.run([*(more or []), self.as_qemu, *args], cwd=self.scratch, input=data,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=harness.TIMEOUT, check=False, **options)
        err = done.stderr.decode()
        self.assertEqual(done.returncode, status, (args, err))
        return done.stdout, err

    def ok(self, *args, **more):
        result = self.img(*args, **more)
        self.assertEqual(result.status, 0, (args, result))
        return result

    def assert_content(self, name, fmt, data=None):
        data = self.data if data is None else data
        if fmt == 'raw':
            self.assertEqual(self.read(name), data, name)
            return
        self.ok('check', '-f', fmt, name)
        self.ok('convert', '-f', fmt, '-O', 'raw', name, 'content')
        self.assertEqual(self.read('content'), data, name)

    def assert_content_for_both(self, name, data=None):
        """The reference reads the qcow2 image as we do."""
        self.assert_content(name, 'qcow2', data)
        if harness.reference() is not None:
            self.make('check', '-f', 'qcow2', name)
            self.make('convert', '-f', 'qcow2', '-O', 'raw', name, 'theirs')
            self.assertEqual(self.read('theirs'), self.read('content'), name)

    def test_raw_to_raw(self):
        for args in (['-f', 'raw', '-'], ['-'], ['-f', 'raw', 'a.raw'],
                     ['-r', '1G', '-f', 'raw', '-'], ['-r', '1G', '-f', 'raw', 'a.raw']):
            out, err = self.pipe('convert', *args, '-', data=self.data)
            self.assertTrue(out == self.data, args)
            self.assertEqual(err, '')

    def test_qcow2_goes_out(self):
        shapes = ([], ['-o', 'compat=0.10'], ['-o', 'cluster_size=512'],
                  ['-o', 'cluster_size=2M,refcount_bits=1'], ['-o', 'extended_l2=on'],
                  ['-o', 'refcount_bits=64,cluster_size=4k'], ['-S', '0'],
                  ['-o', 'compression_type=zstd,lazy_refcounts=on'])
        for shape in shapes:
            out, _ = self.pipe('convert', '-f', 'raw', '-O', 'qcow2', *shape, 'a.raw', '-')
            self.write('out', out)
            self.assert_content_for_both('out')
            # It may be written to.
            self.assertEqual(harness.run(harness.ours('blockgraph-io'),
                                         ['-f', 'qcow2', '-c', 'write -P 7 69k 3M', 'out'],
                                         self.scratch).status, 0)
            self.ok('check', 'out')

    def test_only_data_goes_out(self):
        with open(self.path('sparse'), 'wb') as file:
            file.truncate(12 << 40)
            for offset in (0, 1 << 40, (12 << 40) - 512):
                file.seek(offset)
                file.write(b'x' * 512)
        out, _ = self.pipe('convert', '-f', 'raw', '-O', 'qcow2', 'sparse', '-')
        self.assertLess(len(out), 2 * MIB)
        self.write('out', out)
        self.ok('check', '-f', 'qcow2', 'out')
        self.assertEqual(self.ok('compare', '-f', 'raw', '-F', 'qcow2', 'sparse', 'out').out,
                         'Images are identical.\n')

    def test_many_tables(self):
        """More than one refcount block, refcount table cluster and L2 table."""
        data = os.urandom(3 * MIB)
        out, _ = self.pipe('convert', '-f', 'raw', '-O', 'qcow2', '-o',
                           'cluster_size=512,refcount_bits=64', '-', '-', data=data)
        self.write('out', out)
        self.assert_content_for_both('out', data)

    def test_empty(self):
        for fmt in ('raw', 'qcow2'):
            out, _ = self.pipe('convert', '-f', 'raw', '-O', fmt, '-', '-')
            self.write('out', out)
            self.assert_content('out', fmt, b'')
            self.pipe('convert', '-f', 'raw', '-O', fmt, '-', 'out')
            self.assert_content('out', fmt, b'')

    def test_raw_comes_in(self):
        shapes = (['raw'], ['qcow2'], ['qcow2', '-c', '-o', 'cluster_size=2M'])
        for length, more in ((0, []), (511, []), (512, []), (2 * MIB, []), (2 * MIB + 65536, []),
                             (LENGTH, [['qcow2', '-c'], ['raw', '-S', '0']])):
            data = self.data[:length]
            for args in [*shapes, *more]:
                self.pipe('convert', '-f', 'raw', '-O', *args, '-', 'out', data=data)
                self.assert_content('out', args[0], data + bytes(-length % 512))

    def test_a_long_one_comes_in(self):
        """The target grows several times, and is in the end as long as it should be."""
        data = b'x' + bytes(150 * MIB) + b'y' * 1023
        for fmt in ('raw', 'qcow2'):
            self.pipe('convert', '-f', 'raw', '-O', fmt, '-', 'out', data=data)
            info = json.loads(self.ok('info', '-f', fmt, '--output=json', 'out').out)
            self.assertEqual(info['virtual-size'], len(data))
            self.assertLess(info['actual-size'], MIB)
            self.write('in.raw', data)
            self.ok('compare', '-f', 'raw', '-F', fmt, 'in.raw', 'out')

    def test_qcow2_comes_in(self):
        self.ok('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'a.raw', 'a.qcow2')
        for args in (['-f', 'qcow2'], []):
            out, _ = self.pipe('convert', *args, '-', '-', data=self.read('a.qcow2'))
            self.assertTrue(out == self.data)
            self.pipe('convert', *args, '-O', 'qcow2', '-', 'out', data=self.read('a.qcow2'))
            self.assert_content('out', 'qcow2')
        with open(self.path('a.qcow2'), 'rb') as file:
            done = subprocess.run([self.as_qemu, 'convert', '-', '-'], stdin=file, check=True,
                                  stdout=subprocess.PIPE, cwd=self.scratch)
        self.assertTrue(done.stdout == self.data)

    def test_a_backing_file_of_standard_input(self):
        """A relative name has no folder to start from; an absolute one needs none."""
        for name in ('a.raw', 'folder/../a.raw', self.path('a.raw')):
            self.ok('create', '-q', '-f', 'qcow2', '-u', '-b', name, '-F', 'raw', 'top',
                    str(LENGTH))
            with open(self.path('top'), 'rb') as file:
                for ends in ({'stdin': file}, {'input': self.read('top')}):
                    done = subprocess.run([self.as_qemu, 'convert', '-', 'out'], check=False,
                                          stderr=subprocess.PIPE, cwd=self.scratch, **ends)
                    err = done.stderr.decode()
                    self.assertEqual(done.returncode, 0 if name[0] == '/' else 1, err)
                    if name[0] == '/':
                        self.assert_content('out', 'raw')
                        os.remove(self.path('out'))
                        continue
                    self.assertIn("standard input: Could not open backing file: '%s' is relative"
                                  % name, err)
                    self.assertNotIn('/proc', err)
                    self.assertFalse(os.path.exists(self.path('out')))

    def test_a_file_that_may_not_be_opened_anew(self):
        """The descriptor is enough, as after sudo -u."""
        self.ok('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2')
        more = ['setpriv', '--bounding-set', '-dac_override,-dac_read_search', '--inh-caps',
                '-dac_override,-dac_read_search'] if os.geteuid() == 0 else []
        with open(self.path('a.qcow2'), 'rb') as file:
            os.chmod(self.path('a.qcow2'), 0)
            done = subprocess.run([*more, self.as_qemu, 'convert', '-', '-'], stdin=file,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                                  cwd=self.scratch)
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        self.assertTrue(done.stdout == self.data)

    def test_several_in_a_row(self):
        out, _ = self.pipe('convert', '-f', 'raw', '-O', 'raw', 'a.raw', '-', '-', data=self.data)
        self.assertTrue(out == self.data * 2)

    def test_into_a_target_that_exists(self):
        self.ok('create', '-q', '-f', 'qcow2', 'out', str(LENGTH))
        self.pipe('convert', '-n', '-f', 'raw', '-O', 'qcow2', '-', 'out', data=self.data)
        self.assert_content('out', 'qcow2')
        _, err = self.pipe('convert', '-n', '-f', 'raw', '-O', 'qcow2', '-', 'out', status=1,
                           data=self.data + bytes(512))
        self.assertIn('smaller', err)

    def test_what_cannot_be(self):
        for args, part in ((['-c', 'a.raw', '-'], '-c cannot'), (['-n', 'a.raw', '-'], '-n cannot'),
                           (['-B', 'a.raw', '-F', 'raw', 'a.raw', '-'], '-B cannot'),
                           (['-', '-', 'out'], 'only once'),
                           (['-o', 'preallocation=full', 'a.raw', '-'], "'preallocation' cannot"),
                           (['-o', 'cluster_size=3', 'a.raw', '-'], 'power of two'),
                           (['-o', 'nothing=1', 'a.raw', '-'], "'nothing'"),
                           (['--digest', 'crc', 'a.raw', 'out'], "not 'crc'")):
            out, err = self.pipe('convert', '-f', 'raw', '-O', 'qcow2', *args, status=1)
            self.assertIn(part, err)
            self.assertEqual(out, b'')
        self.assertFalse(os.path.exists(self.path('out')))

    def test_closed_descriptors(self):
        for redirection, args, part in (('>&-', 'a.raw -', 'output is closed'),
                                        ('<&-', '- out', 'input is closed'),
                                        ('<&-', '-f raw - out', 'input is closed')):
            _, err = self.pipe(more=['sh', '-c', '"$0" convert %s %s' % (args, redirection)],
                               status=1)
            self.assertIn(part, err)
        self.assertFalse(os.path.exists(self.path('out')))

    def test_a_reader_that_goes(self):
        for fmt in ('raw', 'qcow2'):
            with subprocess.Popen([self.as_qemu, 'convert', '-f', 'raw', '-O', fmt, 'a.raw', '-'],
                                  cwd=self.scratch, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE) as process:
                process.stdout.read(1)
                process.stdout.close()
                err = process.stderr.read().decode()
            self.assertEqual(process.returncode, 1)
            self.assertRegex(err, 'standard output: .*: Broken pipe')

    def test_a_full_disk(self):
        with open('/dev/full', 'wb') as full:
            for args in (['-f', 'raw', 'a.raw', '-'], ['-f', 'raw', '-', '-']):
                for fmt in ('raw', 'qcow2'):
                    done = subprocess.run([self.as_qemu, 'convert', '-O', fmt, '--digest',
                                           'sha256', *args], stdout=full,
                                          stderr=subprocess.PIPE, cwd=self.scratch,
                                          input=self.data, check=False)
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(b'standard output: ', done.stderr)
                    self.assertIn(b'No space left', done.stderr)
                    self.assertNotIn(b'sha256', done.stderr)

    def test_source_is_target(self):
        with open(self.path('a.raw'), 'r+b') as file:
            for args, ends in ((['a.raw', '-'], {'stdout': file}), (['-', 'a.raw'],
                                                                   {'stdin': file})):
                done = subprocess.run([self.as_qemu, 'convert', '-f', 'raw', *args], check=False,
                                      stderr=subprocess.PIPE, cwd=self.scratch, **ends)
                self.assertEqual(done.returncode, 1)
                self.assertIn(b'of the source', done.stderr)
        # It would be read as it grows, without an end; there is an end to how far.
        with open(self.path('a.raw'), 'rb') as reading, open(self.path('a.raw'), 'ab') as writing:
            done = subprocess.run([self.as_qemu, 'convert', '-f', 'raw', '-', '-'], check=False,
                                  stdin=reading, stdout=writing, stderr=subprocess.PIPE,
                                  cwd=self.scratch, preexec_fn=limit_files)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b'of the source', done.stderr)
        self.assertEqual(self.read('a.raw'), self.data)

    def test_progress_is_not_in_the_data(self):
        for args in (['a.raw'], ['-']):
            out, err = self.pipe('convert', '-p', '-f', 'raw', *args, '-', data=self.data)
            self.assertTrue(out == self.data)
            self.assertIn('(100.00/100%)', err)

    # ---- --digest ----------------------------------------------------------------------

    def test_digest(self):
        for name in ('md5', 'sha1', 'sha256', 'sha384', 'sha512'):
            wanted = '%s  %s\n' % (name, hashlib.new(name, self.data).hexdigest())
            self.assertEqual(self.ok('convert', '-f', 'raw', '-O', 'qcow2', '--digest', name,
                                     'a.raw', 'a.qcow2').out, wanted)
        for args in (['-W', '-m', '16'], ['-c'], ['-S', '0'], ['-m', '1', '-r', '1G']):
            result = self.ok('convert', '-O', 'qcow2', *args, '--digest', 'sha512', 'a.qcow2',
                             'out')
            self.assertEqual(result.out, wanted, args)

    def test_digest_of_a_stream(self):
        wanted = 'sha256  %s\n' % hashlib.sha256(self.data).hexdigest()
        for args in (['-O', 'raw', '-', '-'], ['-O', 'qcow2', '-', '-'],
                     ['-O', 'qcow2', 'a.raw', '-']):
            _, err = self.pipe('convert', '-f', 'raw', '--digest', 'sha256', *args, data=self.data)
            self.assertEqual(err, wanted)
        out, _ = self.pipe('convert', '-f', 'raw', '--digest', 'sha256', '-', 'out',
                           data=self.data)
        self.assertEqual(out.decode(), wanted)

    def test_digest_with_a_backing_file(self):
        """What the target's backing file gives is not copied, but counts."""
        self.ok('create', '-q', '-f', 'qcow2', '-b', 'a.raw', '-F', 'raw', 'top')
        self.assertEqual(harness.run(harness.ours('blockgraph-io'),
                                     ['-c', 'write -P 9 100k 200k', '-c', 'write -z 6M 1M', 'top'],
                                     self.scratch).status, 0)
        data = bytearray(self.data)
        data[100 << 10:300 << 10] = b'\x09' * (200 << 10)
        data[6 * MIB:7 * MIB] = bytes(MIB)
        for args in ([], ['-c'], ['-W']):
            result = self.ok('convert', '-O', 'qcow2', '-B', 'a.raw', '-F', 'raw', *args,
                             '--digest', 'sha256', 'top', 'out')
            self.assertEqual(result.out, 'sha256  %s\n' % hashlib.sha256(data).hexdigest())
            self.assert_content('out', 'qcow2', bytes(data))
            self.assertLess(os.path.getsize(self.path('out')), 2 * MIB)

    # ---- --progress-fd -----------------------------------------------------------------

    def progress(self, *args):
        """The lines that a command writes."""
        reader, writer = os.pipe()
        try:
            result = self.ok(*args, '--progress-fd', writer, pass_fds=[writer])
        finally:
            os.close(writer)
        with open(reader, encoding='ascii') as file:
            lines = [json.loads(line) for line in file]
        parts = [line['progress'] for line in lines]
        self.assertEqual(parts, sorted(parts), args)
        self.assertEqual(parts[0], 0, args)
        for line in lines:
            if 'total' in line:
                self.assertAlmostEqual(line['bytes'] * 100 / line['total'], line['progress'],
                                       delta=0.01)
        return result, lines

    def test_progress_of_every_command(self):
        self.ok('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'base')
        for name in ('top', 'top2'):
            self.ok('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', name)
        for args in (['convert', 'base', 'out'], ['convert', '-q', '-O', 'qcow2', 'base', 'out'],
                     ['compare', 'base', 'base'], ['rebase', '-b', '', 'top'],
                     ['amend', '-o', 'refcount_bits=64', 'base'], ['commit', '-q', 'top2']):
            result, lines = self.progress(*args)
            self.assertEqual(lines[-1]['progress'], 100, args)
            self.assertNotIn('100%', result.out + result.err)

    def test_progress_counts_bytes(self):
        _, lines = self.progress('convert', '-f', 'raw', '-S', '0', 'a.raw', 'out')
        self.assertEqual(lines[-1], {'progress': 100, 'bytes': LENGTH, 'total': LENGTH})
        self.assertGreater(len(lines), 3)

    def test_progress_where_it_cannot_go(self):
        reading = os.open(self.path('a.raw'), os.O_RDONLY)
        self.addCleanup(os.close, reading)
        for number, part in (('77', 'Bad file descriptor'), ('x', 'number'), ('-1', 'number'),
                             (reading, 'Bad file descriptor'), ('99999999999', 'number')):
            result = self.img('convert', '--progress-fd', number, 'a.raw', 'out',
                              pass_fds=[reading])
            self.assertEqual(result.status, 1)
            self.assertRegex(result.err, '--progress-fd.*' + part)
            self.assertFalse(os.path.exists(self.path('out')))
        _, err = self.pipe('convert', '--progress-fd', '1', 'a.raw', '-', status=1)
        self.assertIn('where the image goes', err)

    def test_nobody_reads_the_progress(self):
        reader, writer = os.pipe()
        os.close(reader)
        result = self.ok('convert', '--progress-fd', writer, '-f', 'raw', 'a.raw', 'out',
                         pass_fds=[writer])
        os.close(writer)
        self.assertEqual(result.err.count('Broken pipe'), 1)
        self.assertEqual(self.read('out'), self.data)

    def test_progress_does_not_wait_where_writing_does_not(self):
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(writer, False)
        with self.assertRaises(BlockingIOError):
            while True:
                os.write(writer, b'x' * 4096)
        result = self.ok('convert', '--progress-fd', writer, '-f', 'raw', 'a.raw', 'out',
                         pass_fds=[writer])
        os.close(writer)
        self.assertEqual(result.err, '')
        self.assertEqual(self.read('out'), self.data)


if __name__ == '__main__':
    harness.main()
