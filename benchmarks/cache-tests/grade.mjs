// Grades a run: node grade.mjs SUITE RESULTS.json -> totals and what did not pass, as JSON.
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, results] = process.argv.slice(2)
const load = file => import(pathToFileURL(path.resolve(suite, file)))
const newer = fs.existsSync(path.join(suite, 'test-engine'))
const { determineTestResult } = await load(newer ? 'test-engine/lib/results.mjs' : 'lib/display.mjs')
const suites = (await load('tests/index.mjs')).default
const run = JSON.parse(fs.readFileSync(results, 'utf8'))

const totals = {}
const missed = []
for (const { id: group, tests } of suites) {
  for (const test of tests) {
    const kind = test.kind ?? 'required'
    if (run[test.id] === undefined || test.browser_only) continue
    totals[kind] ??= { passed: 0, of: 0 }
    totals[kind].of++
    const symbol = determineTestResult(suites, test.id, run)[2]
    if (symbol === '✅' || symbol === 'Y') {
      totals[kind].passed++
    } else {
      missed.push({ group, id: test.id, kind, symbol, name: test.name, said: run[test.id] })
    }
  }
}
console.log(JSON.stringify({ totals, missed }, null, 1))
