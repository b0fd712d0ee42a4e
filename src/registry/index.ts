/**
 * Takes a reference pinned by digest and returns the bytes, all of them hashed again. Refuses references that are not
 * pinned and content that differs. Uses plain HTTP only with this machine.
 */
export { downloadFile, type PullOptions, pullImage, type Refuse } from './pull-image.ts';
