#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img measure against qemu-img measure."""
import harness

QCOW2_OPTIONS = (
    'cluster_size=512', 'cluster_size=2M', 'preallocation=full', 'preallocation=metadata',
    'preallocation=falloc', 'extended_l2=on', 'refcount_bits=64', 'refcount_bits=1',
    'compat=0.10', 'lazy_refcounts=on')


class MeasureTest(harness.ToolTest):

    def test_every_image(self):
        self.need_reference()

        def check(image):
            for target in ('raw', 'qcow2'):
                for output in harness.each_or_one(('json', 'human'), image['name'], target):
                    args = ['measure', '--output=' + output, '-O', target, *harness.source(image)]
                    mine = self.img(*args, cwd=harness.Corpus.folder)
                    theirs = self.qemu(*args, cwd=harness.Corpus.folder)
                    self.assertEqual(mine.status, theirs.status,
                                     '%r\nreference: %r' % (mine, theirs))
                    self.assertEqual(mine.out, theirs.out, args)
        self.for_images(check, lambda image: image['expect'] == 'ok')

    def test_every_snapshot(self):
        def check(image):
            for snapshot in image['snapshots']:
                self.check_same('measure', '-O', 'qcow2', '-l', snapshot, image['file'],
                                cwd=harness.Corpus.folder)
        self.for_images(check, lambda image: image['snapshots'] and image['expect'] == 'ok')

    def test_options(self):
        self.need_reference()
        self.write('a.raw', b'x' * 100000, size=4 << 20)
        for options in QCOW2_OPTIONS:
            self.check_same('measure', '-O', 'qcow2', '-o', options, '-f', 'raw', 'a.raw')
            self.check_same('measure', '-O', 'qcow2', '-o', options, '--size', '10G')

    def test_sizes(self):
        self.need_reference()
        for size in ('0', '1', '512', '513', '1M', '10G', '63T', '64T', '1P'):
            self.check_same('measure', '-O', 'qcow2', '--size', size)
            self.check_same('measure', '--output=json', '-O', 'raw', '--size', size)

    def test_damage(self):
        def check(image):
            result = self.img('measure', '-O', 'qcow2', *harness.source(image),
                              cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            self.assertIn(result.status, (0, 1))
            self.assertEqual(result.status == 0, bool(result.out))
        self.for_images(check, lambda image: 'damaged' in image['tags'])

    def test_wrong_usage(self):
        self.need_reference_text()
        self.write('a.raw', size=4096)
        for args in ([], ['missing'], ['--size', '1M', 'a.raw'], ['a', 'b'],
                     ['-O', 'nosuch', 'a.raw'], ['-O', 'bochs', 'a.raw'],
                     ['-f', 'nosuch', 'a.raw'], ['-O', 'qcow2', '--size', 'foo'],
                     ['-O', 'qcow2', '--size', '8E'], ['-O', 'qcow2', '--size', '-1'],
                     ['-O', 'qcow2', '--size', '2E'],
                     ['-O', 'qcow2', '-o', 'cluster_size=3k', 'a.raw'],
                     ['-O', 'qcow2', '-o', 'foo=1', 'a.raw'], ['-l', 'snapshot.x=1', 'a.raw']):
            self.check_same('measure', *args)


if __name__ == '__main__':
    harness.main()
