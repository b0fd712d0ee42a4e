/**
 * Takes the name of an external program, gives a file to run: from KUBEBUILDER_ASSETS and PATH, the cache, the
 * publisher's archive with a pinned checksum, or a build of its pinned Go module. Refuses an archive that is not the
 * one that was pinned.
 */

export type { ToolName } from './catalogue.ts';
export { findOnPath } from './find-on-path.ts';
export { provide, type ToolSettings } from './provide.ts';
