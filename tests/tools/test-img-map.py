#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img map against qemu-img map."""
import json

import harness


def without_new_members(entries):
    """What a QEMU before 8.2 tells."""
    return [{key: value for key, value in entry.items() if key != 'compressed'}
            for entry in entries]


class MapTest(harness.ToolTest):

    @staticmethod
    def agrees(image):
        return image['expect'] == 'ok'

    def compare_json(self, *args, cwd=None):
        mine = self.img('map', '--output=json', *args, cwd=cwd)
        theirs = self.qemu('map', '--output=json', *args, cwd=cwd)
        self.assertFalse(harness.crashed(mine), mine)
        self.assertEqual(mine.status, theirs.status, '%r\nreference: %r' % (mine, theirs))
        if self.compares_text:
            self.assertEqual(mine.out, theirs.out, mine.err)
        elif mine.status == 0:
            self.assertEqual(without_new_members(json.loads(mine.out)),
                             without_new_members(json.loads(theirs.out)))

    def test_every_image_as_json(self):
        self.for_images(lambda image: self.compare_json(
            *harness.source(image), cwd=harness.Corpus.folder), self.agrees)

    def test_every_image_for_people(self):
        self.need_reference_text()

        def check(image):
            self.check_same('map', *harness.source(image), cwd=harness.Corpus.folder)
        self.for_images(check, self.agrees)

    def test_document_is_complete_or_absent(self):
        def check(image):
            result = self.img('map', '--output=json', *harness.source(image),
                              cwd=harness.Corpus.folder)
            self.assertFalse(harness.crashed(result), result)
            if result.status == 0:
                json.loads(result.out)
            else:
                self.assertEqual(result.out, '')
                self.assertTrue(result.err)
        self.for_images(check, lambda image: 'damaged' in image['tags'])

    def test_ranges(self):
        self.make('create', '-q', '-f', 'qcow2', 'a.qcow2', '4M')
        harness.run(harness.reference_io(), ['-f', 'qcow2', '-c', 'write 0 128k',
                                             '-c', 'write 1M 64k', 'a.qcow2'], self.scratch)
        self.need_reference_text()
        for args in (['-s', '64k', '-l', '100'], ['-s', '100', '-l', '100k'], ['-s', '8M'],
                     ['-s', '4M'], ['--start-offset=1M', '--max-length=1M'], ['-s', 'foo'],
                     ['-l', 'foo'], ['-s', '-1'], ['-s', '8E'], ['-l', '0'], []):
            self.check_same('map', '--output=json', *args, 'a.qcow2')
            self.check_same('map', *args, 'a.qcow2')

    def test_protocols_and_windows(self):
        self.write('a.raw', b'x' * 70000, size=1 << 20)
        self.need_reference_text()
        for name in (['--image-opts', 'driver=raw,file.filename=a.raw,offset=64k,size=64k'],
                     ['--image-opts', 'driver=blkdebug,image.filename=a.raw'],
                     ['--image-opts', 'driver=file,filename=a.raw'], ['null-co://']):
            self.check_same('map', '--output=json', *name)
            self.check_same('map', *name)

    def test_wrong_usage(self):
        self.need_reference_text()
        for args in ([], ['a', 'b'], ['--output=xml', 'a'], ['missing'],
                     ['-f', 'raw', '--image-opts', 'driver=raw']):
            self.check_same('map', *args)


if __name__ == '__main__':
    harness.main()
