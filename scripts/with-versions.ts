import { spawn } from 'node:child_process';
import { readVersions, variablesOf } from './versions.ts';

// node scripts/with-versions.ts kubernetes=1.36 helm=4.3 kustomize=newest -- COMMAND: runs it with these versions.
const split = process.argv.indexOf('--');
const [program, ...args] = split === -1 ? [] : process.argv.slice(split + 1);
if (program === undefined) throw new Error('give a command after `--`');
const choice = Object.fromEntries(
  process.argv.slice(2, split).map((argument) => {
    const [name, [minor, ...more]] = readVersions(argument);
    if (more.length > 0) throw new Error(`\`${argument}\`: give one version`);
    return [name, minor];
  }),
);
const env = { ...process.env, ...(await variablesOf(choice)) };
spawn(program, args, { env, stdio: 'inherit' }).on('close', (code) => {
  process.exitCode = code ?? 1;
});
