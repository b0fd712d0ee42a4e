/**
 * Takes arguments; returns text and an exit code: 0 the gate says yes, 1 it says no, 2 it could not be judged. Opens
 * what a command needs and passes it to the rooms; decides nothing itself.
 */
export { runCli } from './run-cli.ts';
