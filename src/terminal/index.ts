/**
 * Takes text; returns text that is safe on a terminal, with colours, exit codes and progress bars. Control characters
 * and direction marks from outside are made visible by `plain`.
 */
export { EXIT, fail, type Io, paint, plain } from './io.ts';
export { Progress } from './progress.ts';
