/**
 * Takes AdmissionReviews over TLS, gives AdmissionReviews back. Translates only; the gate decides. Refuses bodies that
 * are too large or no review, and what it cannot decide in time; any failure to decide is a "no" with its reason. Ends
 * connections that say nothing, oldest first, before they take the place of one that asks.
 */
export { addAuditEndpoint } from './audit.ts';
export { CertificateKeeper, type Identity } from './certificate-keeper.ts';
export { type Certificates, generateCertificates, isUsable, makeCertificates } from './certificates.ts';
export { type ConnectionLimits, guardConnections } from './connections.ts';
export { Demand } from './demand.ts';
export { type CertificateSource, fromFiles, selfMade } from './serving-certificate.ts';
export { CurrentScopes, createWebhook, type Doors } from './webhook.ts';
export { showIdentity, webhookServer } from './webhook-server.ts';
