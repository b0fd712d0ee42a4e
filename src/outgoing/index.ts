/**
 * Takes a parsed address and limits, and returns the whole answer of a web server: status, headers and bytes. Refuses
 * redirects to hosts that were not named, answers above the byte and time limits, and encodings that were not
 * requested. Errors never contain text from a server, only its status and error codes.
 */
export { askServer, type Limits, type Question, type Reply, remoteCode } from './ask-server.ts';
