/**
 * Takes files of a commit and a recipe. Returns the output of the real `kustomize` or `helm`, run on a copy of exactly
 * those files, without network, plugins, other programs or user settings. Manifests and program output are parsed in a
 * separate process. Both kinds of process have hard limits of memory and time, and can die without ending the service.
 * Remote resources are refused by name before anything runs.
 */

export { type Made, openFence } from './fence.ts';
export { type ChartPin, hostOf } from './pinned-chart.ts';
export { programVersionTrouble } from './program-version.ts';
export { ReadingProcess } from './reading-process.ts';
export type { Recipe, RepositoryTree } from './recipe.ts';
