#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes wrong around an image: the same exit codes and words as qemu-img."""
import os
import re
import shutil
import subprocess

import harness

READERS = (['info'], ['info', '--output=json'], ['map'], ['map', '--output=json'], ['check'],
           ['snapshot', '-l'], ['measure'])
COMMANDS = ('check', 'compare', 'convert', 'create', 'dd', 'graph', 'info', 'map', 'measure',
            'snapshot')
LOCK_BYTES = 100


class ErrorsTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.write('a.raw', b'x' * 4096, size=65536)
        self.write('empty')
        os.mkdir(self.path('folder'))

    def lines(self, name):
        """Every command that reads an image, with its name in place."""
        for command in READERS:
            yield [*command, name]
        yield ['compare', name, 'a.raw']
        yield ['compare', 'a.raw', name]
        yield ['convert', name, 'out.raw']
        yield ['dd', 'if=' + name, 'of=out.raw']

    def test_file_that_is_missing(self):
        self.need_reference_text()
        for args in self.lines('missing'):
            self.check_same(*args)

    def test_folder(self):
        self.need_reference_text()
        for args in self.lines('folder'):
            self.check_same(*args)

    def test_file_that_is_no_image_of_the_format(self):
        self.need_reference_text()
        for image_format in ('qcow2', 'bochs', 'nosuch'):
            for command in READERS:
                self.check_same(*command, '-f', image_format, 'a.raw')

    def test_empty_file(self):
        self.need_reference_text()
        for args in self.lines('empty'):
            self.check_same(*args)
        self.check_same('info', '-f', 'qcow2', 'empty')

    def test_protocol_that_nobody_has(self):
        self.need_reference_text()
        for args in self.lines('nosuchproto:foo'):
            self.check_same(*args)

    def test_bad_options(self):
        self.need_reference_text()
        for name in ('json:{}', 'json:{"driver":"nosuch"}', 'json:{"driver":"qcow2"}'):
            self.check_same('info', name)
        for options in ('driver=qcow2', 'driver=qcow2,file.filename=missing', 'foo',
                        'driver=raw,file.driver=file,file.filename=a.raw,bogus=1',
                        'file.driver=file,file.filename=a.raw,file.bogus=1'):
            self.check_same('info', '--image-opts', options)
        # What is wrong with it is said in each parser's own words.
        self.check_same('info', 'json:{', mask=lambda text: text.split('parse error,')[0])

    def test_read_only_file_is_read(self):
        os.chmod(self.path('a.raw'), 0o444)
        for args in self.lines('a.raw'):
            self.assertIn(self.img(*args).status, (0, 63), args)

    def img_as_nobody(self, *args):
        """Run ours without the right to pass over permissions."""
        if os.geteuid() != 0:
            return self.img(*args)
        if shutil.which('setpriv') is None:
            self.skipTest('no setpriv')
        os.chmod(self.scratch, 0o777)
        plain = ['--reuid=65534', '--regid=65534', '--clear-groups', '--', harness.ours()]
        if harness.run('setpriv', [*plain, '--version']).status != 0:
            self.skipTest('another user cannot run the programs here')
        return harness.run('setpriv', [*plain, *args], self.scratch)

    def test_file_without_permission(self):
        os.chmod(self.path('a.raw'), 0)
        result = self.img_as_nobody('info', 'a.raw')
        self.assertEqual((result.status, result.out), (1, ''), result)
        self.assertIn("Could not open 'a.raw': Permission denied", result.err)

    def test_chain_of_256_layers_is_opened_and_257_are_not(self):
        # Made once each; the name in the copies is another one of the same length.
        self.write('000', size=65536)
        for name, image_format in (('bottom', 'raw'), ('layer', 'qcow2')):
            self.make('create', '-q', '-u', '-f', 'qcow2', '-b', '@@@', '-F', image_format, name,
                      '64k')
        layer = self.read('layer')
        self.assertEqual(layer.count(b'@@@'), 1)
        self.write('001', self.read('bottom').replace(b'@@@', b'000'))
        for number in range(2, 257):
            self.write('%03d' % number, layer.replace(b'@@@', b'%03d' % (number - 1)))
        result = self.img('compare', '-F', 'raw', '255', '000')
        self.assertEqual(result.status, 0, result)
        result = self.img('map', '256')
        self.assertEqual(result.status, 1, result)
        self.assertIn('deeper than 256', result.err)

    def test_read_only_target(self):
        self.write('out.raw', size=65536)
        os.chmod(self.path('out.raw'), 0o444)
        for args in (['-n'], []):
            result = self.img_as_nobody('convert', *args, 'a.raw', 'out.raw')
            self.assertEqual(result.status, 1, result)
            self.assertRegex(result.err, r"'out.raw': Permission denied")
        self.assertEqual(self.read('out.raw'), bytes(65536))

    def test_image_locked_by_a_writer(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        self.make('create', '-q', '-f', 'raw', 'b.raw', '1M')
        self.need_reference_text()
        with self.held('a.qcow2'):
            for args in self.lines('a.qcow2'):
                self.check_same(*args)
            self.check_same('convert', '-n', 'b.raw', 'a.qcow2')
            self.check_same('convert', 'b.raw', 'a.qcow2')
            self.check_same('create', '-f', 'raw', 'a.qcow2', '1M')
            for command in (['info'], ['map'], ['check'], ['snapshot', '-l']):
                self.check_same(*command, '-U', 'a.qcow2')
            # An overlay of a disk in use is how backups begin.
            self.check_same('create', '-f', 'qcow2', '-b', 'a.qcow2', '-F', 'qcow2', 'over.qcow2')

    def test_raw_image_that_is_written_to_is_not_copied(self):
        self.need_reference_text()
        with self.held('a.raw', 'raw'):
            for args in (['-f', 'raw'], ['-U', '-f', 'raw'], ['-f', 'raw', '-O', 'qcow2']):
                self.check_same('convert', *args, 'a.raw', 'out')
            for command in ('info', 'map', 'measure'):
                self.check_same(command, '-f', 'raw', 'a.raw')

    def test_source_is_no_data_file_of_the_target(self):
        before = self.read('a.raw')
        for more in ([], ['-U']):
            result = self.img('convert', *more, '-f', 'raw', '-O', 'qcow2', '-o',
                              'data_file=a.raw', 'a.raw', 'out.qcow2')
            self.assertEqual(result.status, 1, result)
            self.assertIn("the target is a file of the source 'a.raw', too", result.err)
            self.assertTrue(self.read('a.raw') == before)

    def test_messages_do_not_land_in_the_image(self):
        """Started without standard input, output and error, as daemons start programs."""
        self.make('create', '-q', '-f', 'qcow2', 'f.qcow2', '1M')
        before = self.read('f.qcow2')
        for command in (['resize', 'f.qcow2', '64k'], ['snapshot', '-d', 'nosuch', 'f.qcow2'],
                        ['bitmap', '--remove', 'f.qcow2', 'nosuch'], ['info', 'f.qcow2']):
            done = subprocess.run(['sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh', self.as_qemu,
                                   *command], cwd=self.scratch, check=False)
            self.assertEqual(done.returncode, 0 if command[0] == 'info' else 1, command)
            self.assertTrue(self.read('f.qcow2') == before, command)

    def test_file_above_the_limit(self):
        """An error of the write, not the end of the program."""
        for command in (['create', '-f', 'raw', 'out', '1G'],
                        ['convert', '-f', 'raw', '-S', '0', 'a.raw', 'out'],
                        ['convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', 'a.raw', 'out']):
            done = subprocess.run(['sh', '-c', 'ulimit -f 1; exec "$@"', 'sh', self.as_qemu,
                                   *command], cwd=self.scratch, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, check=False, text=True)
            self.assertEqual(done.returncode, 1, (command, done.stderr))
            self.assertRegex(done.stderr, 'too large', command)

    def test_raw_image_that_was_guessed(self):
        """Whoever may write to it is warned."""
        self.need_reference_text()
        for command in (['resize', 'a.raw', '2M'], ['check', '-r', 'all', 'a.raw'],
                        ['resize', '-f', 'raw', 'a.raw', '3M'],
                        ['check', 'a.raw']):
            self.check_same(*command)
        self.assertIn('probing guessed raw', self.img('resize', 'a.raw', '4M').err)

    def test_output_that_cannot_be_written(self):
        for command in (['info', 'a.raw'], ['info', '--output=json', 'a.raw'], ['map', 'a.raw'],
                        ['measure', 'a.raw'], ['graph', 'a.raw'], ['--help'], ['--version'],
                        ['compare', 'a.raw', 'a.raw'], ['create', 'new.raw', '1M']):
            with open('/dev/full', 'w', encoding='ascii') as full:
                done = subprocess.run([self.as_qemu, *command], cwd=self.scratch, stdout=full,
                                      stderr=subprocess.PIPE, check=False, text=True)
            self.assertEqual(done.returncode, 1, (command, done.stderr))
            self.assertIn('No space left on device', done.stderr)

    def test_reader_of_the_output_that_is_gone(self):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([self.as_qemu, 'info', 'a.raw'], cwd=self.scratch, stdout=writer,
                              stderr=subprocess.PIPE, check=False, text=True)
        os.close(writer)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn('Broken pipe', done.stderr)

    def test_target_that_is_full(self):
        result = self.img('convert', '-f', 'raw', 'a.raw', 'nosuchdir/out.raw')
        self.assertEqual(result.status, 1)
        self.assertIn("Could not create 'nosuchdir/out.raw'", result.err)

    def test_global_usage(self):
        self.need_reference_text()
        for args in ([], ['nosuch'], ['--foo'], ['-Z']):
            self.check_same(*args)

    def test_version_under_both_names(self):
        result = harness.run(harness.ours(), ['--version'])
        self.assertRegex(result.out, r'^blockgraph-img version \d+\.\d+\.\d+\n$')
        version = result.out.split()[-1]
        for option in ('--version', '-V'):
            self.assertEqual(self.img(option).out,
                             'qemu-img version 10.0.0 (libblockgraph %s)\n' % version)

    def test_help_lists_formats_and_commands(self):
        text = self.img('--help').out
        formats = re.search(r'^Supported formats: (.*)$', text, re.MULTILINE).group(1).split()
        for name in ('raw', 'qcow2', 'bochs', 'file', 'null-co', 'blkdebug'):
            self.assertIn(name, formats)
        for command in COMMANDS:
            self.assertRegex(text, r'(?m)^  %s - ' % command)

    def test_help_of_every_command(self):
        for command in COMMANDS:
            for option in ('--help', '-h'):
                result = self.img(command, option)
                self.assertEqual((result.status, result.err), (0, ''))
                self.assertIn('  qemu-img %s ' % command, result.out)
                self.assertIn('--aio', result.out)

    def test_engine_is_chosen_and_reported(self):
        for engine in harness.ENGINES:
            for args in (['--aio', engine, '--verbose', 'info', 'a.raw'],
                         ['info', '--verbose', '--aio', engine, 'a.raw']):
                result = self.img(*args)
                if result.status == 1 and engine == 'io_uring':
                    self.skipTest('io_uring is refused here')
                self.assertIn('I/O engine: %s\n' % engine, result.err)
            result = self.img('info', '--verbose', 'a.raw', env={'BLOCKGRAPH_AIO': engine})
            self.assertIn('I/O engine: %s\n' % engine, result.err)

    def test_engine_that_nobody_has(self):
        for args in (['--aio', 'nosuch', 'info', 'a.raw'], ['info', '--aio', 'nosuch', 'a.raw']):
            result = self.img(*args)
            self.assertEqual((result.status, result.out), (1, ''))
            self.assertIn("not 'nosuch'", result.err)

    def test_trace(self):
        names = self.img('--trace', 'help').out.split()
        self.assertTrue(names)
        self.assertEqual(self.img('-T', 'nosuch_event', 'info', 'a.raw').status, 0)
        self.assertEqual(self.img('--trace', names[0], 'info', 'a.raw').status, 0)
        self.assertEqual(self.img('-T', 'enable=help').out.split(), names)

    def refused_as_by_qemu(self, message, *args):
        result = self.img(*args)
        self.assertEqual((result.status, result.out, result.err), (1, '', f'qemu-img: {message}\n'))
        if harness.reference() is not None and self.compares_text:
            theirs = harness.run(harness.reference(), args, self.scratch)
            self.assertEqual((theirs.status, theirs.err), (1, result.err))

    def test_option_lists(self):
        for text in ('', ',', ',,', ',x', ',,x', 'size=1M,', 'size=1M,,,'):
            for command in (['create', 'new.raw', '1M'], ['amend', 'a.raw'],
                            ['convert', 'a.raw', 'new.raw'], ['measure', 'a.raw']):
                self.refused_as_by_qemu(f'Invalid option list: {text}', command[0], '-o', text,
                                        *command[1:])
        self.assertFalse(os.path.exists(self.path('new.raw')))

    def test_sizes(self):
        suffixes = ("Parameter 'size' expects a non-negative number below 2^64\n"
                    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                    "and exabytes, respectively.")
        for text in ('x', '1x', '1M ', '1.5', '0x10M', '1kk', '1MiB'):
            self.refused_as_by_qemu(f'new.raw: {suffixes}', 'create', 'new.raw', '-o',
                                    f'size={text}')
            self.refused_as_by_qemu(suffixes, 'resize', '-f', 'raw', 'none.raw', text)
        huge = '99999999999999999999'
        out_of_range = f"Value '{huge}' is out of range for parameter 'size'"
        self.refused_as_by_qemu(f'new.raw: {out_of_range}', 'create', 'new.raw', '-o',
                                f'size={huge}')
        self.refused_as_by_qemu(out_of_range, 'resize', '-f', 'raw', 'none.raw', huge)
        for words in (['dd', 'if=a.raw', 'of=new.raw', 'count=1k'],
                      ['dd', 'if=a.raw', 'of=new.raw', 'skip=1k'],
                      ['bench', '-c', '1k', '-f', 'raw', 'a.raw'],
                      ['bench', '-d', '1k', '-f', 'raw', 'a.raw'],
                      ['convert', '-m', '1k', 'a.raw', 'new.raw']):
            name = {'count=1k': 'count', 'skip=1k': 'skip', '-c': 'request count',
                    '-d': 'queue depth', '-m': 'number of coroutines'}[
                        words[-1] if words[0] == 'dd' else words[1]]
            self.refused_as_by_qemu(f"Invalid {name} specified: '1k'.", *words)

    def test_files_of_a_trace(self):
        with open(self.path('events'), 'w', encoding='utf-8') as events:
            events.write('# a comment\nnosuch_event\nbdrv_open\n')
        with open(self.path('lines'), 'w', encoding='utf-8') as lines:
            lines.write('before\n')
        result = self.img('-T', 'events=events,file=lines', 'info', 'a.raw')
        self.assertEqual(result.status, 0)
        self.assertEqual(result.err, "qemu-img: warning: events:2: trace event "
                                     "'nosuch_event' does not exist\n")
        with open(self.path('lines'), encoding='utf-8') as lines:
            for line in lines:
                self.assertIn(':bdrv_open ', line)
        self.assertGreater(os.path.getsize(self.path('lines')), 0)
        for option, message in (
                ('events=none', 'none: No such file or directory'),
                ('file=none/x', 'Error opening logfile none/x: No such file or directory'),
                ('file=x%x', 'Bad logfile template: x%x'),
                ('bdrv_open,color=red', "Invalid parameter 'color'")):
            result = self.img('-T', option, 'info', 'a.raw')
            self.assertEqual((result.status, result.out), (1, ''))
            self.assertEqual(result.err, f'qemu-img: {message}\n')


if __name__ == '__main__':
    harness.main()
