/**
 * Takes files of a commit and what is to be made of them, gives what the real `kustomize` or `helm` writes. They run on
 * a copy of exactly those files, without network, plugins, other programs or anyone's settings. Reads manifests and
 * what programs wrote in a process of its own. Both have hard limits of memory and time, and can end without ending the
 * service. Refuses remote resources by name before anything runs.
 */

export { type Made, openFence, type Recipe, type RepositoryTree } from './fence.ts';
export { type ChartPin, hostOf, type PullChart } from './pinned-chart.ts';
export { ReadingProcess } from './reading-process.ts';
