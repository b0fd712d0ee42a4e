/**
 * Takes text; returns what may be shown on a terminal: colours, exit codes and progress bars.
 * Refuses control characters and direction marks from outside: `plain` makes them visible.
 */
export { EXIT, fail, type Io, paint, plain } from './io.ts';
export { Progress } from './progress.ts';
