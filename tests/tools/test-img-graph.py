#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""blockgraph-img graph: the nodes of an image as tree, JSON and DOT."""
import json
import re

import harness


class GraphTest(harness.ToolTest):

    def setUp(self):
        super().setUp()
        self.write('base.raw', size=1 << 20)

    def graph(self, *args):
        result = self.img('graph', *args)
        self.assertEqual(result.status, 0, result)
        self.assertEqual(result.err, '')
        return result.out

    def make_chain(self):
        self.make('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'mid.qcow2')
        self.make('create', '-q', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', 'top.qcow2')

    def test_tree_of_a_raw_file(self):
        self.assertEqual(self.graph('-f', 'raw', 'base.raw'),
                         'base.raw: raw, 1 MiB, read-only\n'
                         '`-- file -> base.raw: file, 1 MiB, read-only\n')

    def test_tree_of_a_chain(self):
        self.make_chain()
        tree = self.graph('top.qcow2')
        names = re.findall(r'(\S+): (qcow2|raw|file),', tree)
        self.assertEqual(sorted(names), [
            ('base.raw', 'file'), ('base.raw', 'raw'), ('mid.qcow2', 'file'),
            ('mid.qcow2', 'qcow2'), ('top.qcow2', 'file'), ('top.qcow2', 'qcow2')])
        self.assertEqual(tree.count('backing -> '), 2)
        self.assertEqual(tree.count('file -> '), 3)

    def test_json_names_nodes_and_edges(self):
        self.make_chain()
        graph = json.loads(self.graph('--output=json', 'top.qcow2'))
        nodes = [node for node in graph['nodes'] if node['kind'] == 'node']
        self.assertEqual(sorted(node['driver'] for node in nodes),
                         ['file', 'file', 'file', 'qcow2', 'qcow2', 'raw'])
        self.assertEqual(len([edge for edge in graph['edges'] if edge['name'] == 'backing']), 2)
        names = {node['name'] for node in nodes}
        self.assertEqual(len(names), 6)
        for edge in graph['edges']:
            self.assertIn(edge['child'], names)

    def test_dot_is_one_graph(self):
        self.make_chain()
        dot = self.graph('--output=dot', 'top.qcow2')
        self.assertTrue(dot.startswith('digraph '))
        self.assertTrue(dot.endswith('}\n'))
        self.assertEqual(dot.count(' -> '), 5)
        self.assertEqual(len(re.findall(r'^    "[^"]+" \[label=', dot, re.MULTILINE)), 6)

    def test_shared_node_is_drawn_once(self):
        self.make('create', '-q', '-f', 'qcow2', '-u', '-b', 'x', '-F', 'raw', 'top.qcow2', '1M')
        options = json.dumps({
            'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'top.qcow2'},
            'backing': {'driver': 'raw', 'offset': 512, 'node-name': 'window',
                        'file': {'driver': 'raw', 'file.driver': 'file',
                                 'file.filename': 'base.raw'}}})
        self.assertIn('json:', self.graph('json:' + options))

    def test_every_image(self):
        def check(image):
            for output in ('tree', 'json', 'dot'):
                result = self.img('graph', '--output=' + output, *harness.source(image),
                                  cwd=harness.Corpus.folder)
                self.assertEqual(result.status, 0, result)
                self.assertTrue(result.out)
                if output == 'json':
                    json.loads(result.out)
        self.for_images(check, lambda image: image['expect'] == 'ok')

    def test_wrong_usage(self):
        for args in ([], ['a', 'b'], ['--output=xml', 'base.raw'], ['missing'],
                     ['-f', 'raw', '--image-opts', 'driver=raw']):
            result = self.img('graph', *args)
            self.assertEqual((result.status, result.out), (1, ''), args)
            self.assertTrue(result.err.startswith('qemu-img: '), result)


if __name__ == '__main__':
    harness.main()
