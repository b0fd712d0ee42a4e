/**
 * Takes a reference that is pinned by digest, gives the bytes; every one is hashed again.
 * Refuses what is not pinned and what is something else; speaks plain HTTP with this machine alone.
 */
export { downloadFile, type Image, type PullOptions, pullImage, type Refuse } from './pull-image.ts';
