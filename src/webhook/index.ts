/**
 * Takes AdmissionReviews over TLS and returns AdmissionReviews. It only translates; the gate decides. Refuses bodies
 * that are too large or not a review, and requests it cannot decide in time. Any failure to decide is a "no" with its
 * reason. Silent connections are ended, oldest first, before they block an active one.
 */
export { addAuditEndpoint } from './audit.ts';
export { CertificateKeeper, type Identity } from './certificate-keeper.ts';
export { type Certificates, generateCertificates, isUsable, makeCertificates } from './certificates.ts';
export { guardConnections } from './connections.ts';
export { Demand } from './demand.ts';
export { type CertificateSource, fromFiles, selfMade } from './serving-certificate.ts';
export { CurrentScopes, createWebhook, type Doors } from './webhook.ts';
export { showIdentity, webhookServer } from './webhook-server.ts';
