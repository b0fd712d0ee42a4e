/**
 * Takes a parsed address and limits, gives a whole answer of a web server: status, headers and bytes. Refuses redirects
 * to hosts that were not named, more bytes and more time than allowed, and encodings that were not asked for. Nothing
 * that a server writes appears in an error: only its status, and codes of a closed form.
 */
export { askServer, type Limits, type Question, type Reply, remoteCode } from './ask-server.ts';
