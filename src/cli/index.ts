/**
 * Arguments in, text and exit code out: 0 the gate says yes, 1 it says no, 2 it could not be judged.
 * Opens what a command needs and hands it to the rooms; decides nothing itself.
 */
export { runCli } from './run-cli.ts';
