#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img snapshot against qemu-img snapshot."""
import harness


class SnapshotTest(harness.ToolTest):

    def test_every_image(self):
        self.need_reference_text()

        def check(image):
            self.check_same('snapshot', '-l', *harness.source(image), cwd=harness.Corpus.folder)
        self.for_images(check, lambda image: image['expect'] == 'ok' and not image['opts'])

    def test_backing_file_that_is_missing(self):
        self.need_reference_text()

        def check(image):
            result = self.check_same('snapshot', '-l', *harness.source(image),
                                     cwd=harness.Corpus.folder)
            self.assertEqual((result.status, result.out), (1, ''))
        self.for_images(check, lambda image: image['name'] == 'names-missing')

    def test_list_is_the_default(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        self.make('snapshot', '-c', 'one', 'a.qcow2')
        self.make('snapshot', '-c', 'a longer name of a snapshot', 'a.qcow2')
        self.need_reference_text()
        for args in (['-l'], [], ['-q', '-l'], ['-U', '-l'], ['-f', 'qcow2']):
            result = self.check_same('snapshot', *args, 'a.qcow2')
            self.assertIn('a longer name', result.out)

    def test_wrong_usage(self):
        self.need_reference_text()
        for args in (['-l'], ['-l', '-c', 'x', 'a'], ['-l', 'missing'], []):
            self.check_same('snapshot', *args)

    def test_changes_are_refused_by_name(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '1M')
        before = self.read('a.qcow2')
        for letter in 'acd':
            result = self.img('snapshot', '-' + letter, 'x', 'a.qcow2')
            self.assertEqual((result.status, result.out), (1, ''))
            self.assertIn('a.qcow2', result.err)
        self.assertEqual(self.read('a.qcow2'), before)


if __name__ == '__main__':
    harness.main()
