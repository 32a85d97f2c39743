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
        for args in ([], ['a', 'b'], ['missing'], ['-f', 'raw', '--image-opts', 'driver=raw']):
            self.check_same('map', *args)

    def test_forms_of_output(self):
        result = self.img('map', '--output=xml', 'a')
        self.assertEqual((result.status, result.out), (1, ''))
        self.assertIn("--output expects 'human', 'json' or 'ascii' not 'xml'\n", result.err)
        self.assertNotIn('expects', self.img('map', '--output=ascii', 'missing').err)

    def test_a_hole_is_asked_for_once(self):
        size = 15 << 40
        with open(self.path('hole.raw'), 'wb') as file:
            file.truncate(size)
        result = self.img('--trace', 'bdrv_co_map', 'map', '--output=json', '-f', 'raw',
                          'hole.raw')
        self.assertEqual((result.status, result.err.count('bdrv_co_map')), (0, 1), result)
        entry, = json.loads(result.out)
        self.assertEqual((entry['start'], entry['length'], entry['zero']), (0, size, True))

    # ---- --output=ascii ------------------------------------------------------------------

    def picture(self, *args, columns=None):
        """(the lines without their offsets, what follows)."""
        env = {'COLUMNS': columns} if columns is not None else None
        result = self.img('map', '--output=ascii', *args, env=env)
        self.assertEqual((result.status, result.err), (0, ''), result)
        lines = result.out.splitlines()
        drawn = [line for line in lines if line.startswith('0x')]
        self.assertLessEqual(len(drawn), 16)
        for line in drawn:
            self.assertLessEqual(len(line), int(columns or 80))
        starts = [int(line.split()[0], 16) for line in drawn]
        self.assertEqual(starts, sorted(set(starts)))
        return [line.split()[1] for line in drawn], lines[len(drawn):]

    def sums(self, legend):
        """Letter → bytes."""
        return {line.split()[0]: int(line.split()[-1]) for line in legend[1:]}

    def test_a_picture_of_every_kind(self):
        def io(name, *commands):
            args = [part for command in commands for part in ('-c', command)]
            result = harness.run(harness.ours('blockgraph-io'), [*args, name], self.scratch)
            self.assertEqual(result.status, 0, result)

        self.assertEqual(self.img('create', '-q', '-f', 'qcow2', 'base', '8M').status, 0)
        io('base', 'write 0 1M', 'write -z 6M 1M')
        self.assertEqual(self.img('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2',
                                  'pictured').status, 0)
        io('pictured', 'write 2M 1M', 'write -c 3M 64k', 'write -z 4M 1M')
        lines, legend = self.picture('pictured')
        text = ''.join(lines)
        cell = (8 << 20) // len(text)
        mib = (1 << 20) // cell
        self.assertEqual(text, 'b' * mib + '.' * mib + '#' * mib + 'c' * (mib // 16) +
                         '.' * (mib - mib // 16) + '0' * mib + '.' * mib + '0' * mib + '.' * mib)
        self.assertEqual(self.sums(legend), {'b': 1 << 20, '#': 1 << 20, 'c': 65536, '0': 2 << 20,
                                             '.': (4 << 20) - 65536})
        # A part of it; and lines of another length.
        self.assertEqual(''.join(self.picture('-s', '2M', '-l', '512', 'pictured')[0]), '#')
        for columns in ('40', '47', '200'):
            lines, _ = self.picture('pictured', columns=columns)
            self.assertGreater(len(lines[0]), int(columns) - 20)
        for columns in ('', 'x', '-3', '99999999999999999999'):
            env = {'COLUMNS': columns}
            result = self.img('map', '--output=ascii', 'pictured', env=env)
            self.assertEqual(result.out, self.img('map', '--output=ascii', 'pictured',
                                                  env={'COLUMNS': '80'}).out)

    def test_a_picture_of_very_little_and_very_much(self):
        self.write('none')
        lines, legend = self.picture('-f', 'raw', 'none')
        self.assertEqual((lines, set(self.sums(legend).values())), ([], {0}))
        self.assertTrue(legend[0].startswith('0 bytes'), legend)
        self.assertEqual(self.img('create', '-q', '-f', 'qcow2', 'huge', '63T').status, 0)
        result = harness.run(harness.ours('blockgraph-io'), ['-c', 'write 40T 512', 'huge'],
                             self.scratch)
        self.assertEqual(result.status, 0, result)
        lines, legend = self.picture('huge')
        self.assertEqual(''.join(lines).strip('.'), '#')
        self.assertEqual(sum(self.sums(legend).values()), 63 << 40)


if __name__ == '__main__':
    harness.main()
