#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Request N of a command fails, for each N, on both engines.

The exit code is not 0, the message names the file and the offset, and JSON is
complete or absent.
"""
import json
import re

import harness

LIMIT = 500


class BlkdebugTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.write('a.raw', b'x' * 70000 + b'\0' * 70000 + b'y' * 70000, size=1 << 20)

    def make_images(self):
        self.make('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', 'a.qcow2', '1M')
        harness.run(harness.reference_io(), [
            '-f', 'qcow2', '-c', 'write -P 1 0 64k', '-c', 'write -P 2 512k 12k',
            '-c', 'write -z 128k 64k', 'a.qcow2'], self.scratch)
        self.make('convert', '-f', 'raw', '-c', '-O', 'qcow2', 'a.raw', 'c.qcow2')

    @staticmethod
    def failing(name, image_format, after):
        """Options for an image whose read number `after` fails, and which alone."""
        return ('driver=%s,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s,'
                'file.inject-error.0.event=none,file.inject-error.0.iotype=read,'
                'file.inject-error.0.errno=5,file.inject-error.0.once=on,'
                'file.inject-error.0.after=%d' % (image_format, name, after))

    def check_each(self, make_args, name, image_format, is_json=False):
        """Fail request 0, 1, 2, … until the command gets by without that many."""
        for engine in harness.each_or_one(harness.ENGINES, make_args(''), name):
            for after in range(LIMIT):
                args = make_args(self.failing(name, image_format, after))
                result = self.img('--aio', engine, *args)
                self.assertFalse(harness.crashed(result), (args, result))
                if result.status == 0:
                    break
                self.check_failure(args, name, result, is_json)
            self.assertGreater(after, 0, '%s: no request failed' % args[0])
            self.assertLess(after, LIMIT - 1, '%s: no end of requests' % args[0])

    def check_failure(self, args, name, result, is_json):
        self.assertIn(name, result.err, args)
        self.assertRegex(result.err, r'Input/output error', args)
        self.assertRegex(result.err, r'(offset|byte|cluster) (0x[0-9a-f]+|[0-9]+)', args)
        if is_json and result.out:
            json.loads(result.out)

    def for_formats(self, make_args, is_json=False, formats=('raw', 'qcow2')):
        if 'qcow2' in formats:
            self.make_images()
        for name in ('a.raw', 'a.qcow2', 'c.qcow2'):
            if name.split('.')[1] in formats:
                self.check_each(make_args, name, name.split('.')[1], is_json)

    def test_convert(self):
        for extra in ([], ['-W', '-m', '16'], ['-m', '1']):
            self.for_formats(lambda options, extra=extra: [
                'convert', *extra, '--image-opts', options, 'out.raw'])

    def test_compare(self):
        self.make_images()
        for name, image_format in (('a.raw', 'raw'), ('a.qcow2', 'qcow2'), ('c.qcow2', 'qcow2')):
            plain = 'driver=%s,file.driver=file,file.filename=%s' % (image_format, name)
            self.check_each(lambda options, plain=plain: [
                'compare', '--image-opts', options, plain], name, image_format)
            self.check_each(lambda options, plain=plain: [
                'compare', '--image-opts', plain, options], name, image_format)

    def test_check(self):
        for output in ('human', 'json'):
            self.for_formats(lambda options, output=output: [
                'check', '--output=' + output, '--image-opts', options],
                output == 'json', ('qcow2',))

    def test_map(self):
        self.for_formats(lambda options: ['map', '--output=json', '--image-opts', options],
                         True, ('qcow2',))
        # With compressed clusters, the human form is an error anyway.
        self.check_each(lambda options: ['map', '--image-opts', options], 'a.qcow2', 'qcow2')

    def test_info(self):
        for output in ('human', 'json'):
            self.for_formats(lambda options, output=output: [
                'info', '--output=' + output, '--image-opts', options],
                output == 'json', ('qcow2',))

    def test_json_is_absent_after_an_error(self):
        self.make_images()
        for command in ('info', 'map'):
            for after in range(LIMIT):
                result = self.img(command, '--output=json', '--image-opts',
                                  self.failing('a.qcow2', 'qcow2', after))
                if result.status == 0:
                    json.loads(result.out)
                    break
                self.assertEqual(result.out, '', command)

    def test_failed_write_names_target_and_offset(self):
        for after in range(LIMIT):
            self.write('out.raw', size=1 << 20)
            target = ('driver=raw,file.driver=blkdebug,file.image.driver=file,'
                      'file.image.filename=out.raw,file.inject-error.0.event=none,'
                      'file.inject-error.0.iotype=write,file.inject-error.0.errno=28,'
                      'file.inject-error.0.once=on,file.inject-error.0.after=%d' % after)
            result = self.img('convert', '-S', '4k', '-n', '--target-is-zero',
                              '--target-image-opts', '-f', 'raw', 'a.raw', target)
            if result.status == 0:
                break
            self.assertIn('out.raw', result.err)
            self.assertRegex(result.err, r'error while writing at byte \d+: No space left')
        self.assertGreater(after, 0)
        self.assertEqual(self.read('out.raw'), self.read('a.raw'))

    def test_salvage_gets_over_what_cannot_be_read(self):
        options = ('driver=raw,file.driver=blkdebug,file.image.driver=file,'
                   'file.image.filename=a.raw,file.inject-error.0.event=none,'
                   'file.inject-error.0.iotype=read,file.inject-error.0.errno=5,'
                   'file.inject-error.0.sector=16')
        result = self.img('convert', '--image-opts', options, 'out.raw')
        self.assertEqual(result.status, 1)
        result = self.img('convert', '--salvage', '--image-opts', options, 'out.raw')
        self.assertEqual(result.status, 0, result)
        self.assertIn('warning: ', result.err)
        self.assertRegex(result.err, 'error while reading offset 8192: Input/output error')
        expected = bytearray(self.read('a.raw'))
        expected[8192:8704] = bytes(512)
        self.assertEqual(self.read('out.raw'), bytes(expected))
        result = self.img('convert', '-q', '--salvage', '--image-opts', options, 'out.raw')
        self.assertEqual((result.status, result.err), (0, ''))


if __name__ == '__main__':
    harness.main()
