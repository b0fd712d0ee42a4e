/**
 * Takes files of a commit and what is to be made of them, gives what the real `kustomize` or `helm` writes. They run on a copy
 * of exactly those files, without network, plugins, other programs or anybody's settings, for a bounded time. Refuses
 * remote resources by name before anything runs.
 */

export { type Made, openFence, type Recipe, type RepositoryTree } from './fence.ts';
export { type ChartPin, hostOf, type PullChart } from './pinned-chart.ts';
