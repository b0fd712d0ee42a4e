/**
 * Takes the name of an external program and returns a file to run. It comes from KUBEBUILDER_ASSETS and PATH, the
 * cache, the publisher's archive with a pinned checksum, or a build of its pinned Go module. Refuses an archive that
 * differs from the pinned one.
 */

export { type PlaneProgram, TOOLS, type ToolName } from './catalogue.ts';
export { findOnPath } from './find-on-path.ts';
export { provide, type ToolSettings } from './provide.ts';
