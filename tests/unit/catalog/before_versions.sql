BEGIN TRANSACTION;
CREATE TABLE claims (key TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
INSERT INTO "claims" VALUES('docker.io/library/alpine:latest ',1800000030.0);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
INSERT INTO "facts" VALUES('challenge of docker.io','["Bearer realm=\"https://auth.docker.io/token\""]');
INSERT INTO "facts" VALUES('gate key','0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "facts" VALUES('pass key','1111111111111111111111111111111111111111111111111111111111111111');
CREATE TABLE held (
    upstream TEXT, repository TEXT, digest TEXT, kind TEXT, media_type TEXT, size INTEGER, seen REAL,
    used REAL, PRIMARY KEY (upstream, repository, digest, kind)) WITHOUT ROWID;
INSERT INTO "held" VALUES('docker.io','library/alpine','sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f','manifest','application/vnd.oci.image.index.v1+json',1638,1800000000.0,1800000000.0);
INSERT INTO "held" VALUES('docker.io','library/alpine','sha512:78dfec637347c509fe8d78d55efbd28fa1666f146e3a964b7eda2551e6f36bf29b57266584fa47306ba7332e246e9d4406c5a72a9e609e2eca6e36a6ff505f36','blob','',0,1800000000.0,1800000000.0);
INSERT INTO "held" VALUES('ghcr.io','team/app','sha512:78dfec637347c509fe8d78d55efbd28fa1666f146e3a964b7eda2551e6f36bf29b57266584fa47306ba7332e246e9d4406c5a72a9e609e2eca6e36a6ff505f36','blob','',0,1800000000.0,1800000000.0);
CREATE TABLE listings (
    upstream TEXT, repository TEXT, page TEXT, media_type TEXT, body BLOB, link TEXT, checked REAL,
    PRIMARY KEY (upstream, repository, page));
INSERT INTO "listings" VALUES('docker.io','library/alpine','tags/list?','application/json',X'7B226E616D65223A226C6962726172792F616C70696E65222C2274616773223A5B226C6174657374225D7D','</v2/library/alpine/tags/list?last=latest>; rel="next"',1800000000.0);
CREATE TABLE missing (
    upstream TEXT, repository TEXT, reference TEXT, credential TEXT, message TEXT, until REAL,
    PRIMARY KEY (upstream, repository, reference, credential)) WITHOUT ROWID;
INSERT INTO "missing" VALUES('docker.io','library/alpine','sha256-x.sig','','manifest unknown',1800000010.0);
CREATE TABLE public (
    upstream TEXT, repository TEXT, at REAL, PRIMARY KEY (upstream, repository)) WITHOUT ROWID;
INSERT INTO "public" VALUES('docker.io','library/alpine',1800000000.0);
CREATE TABLE strangers (credential TEXT PRIMARY KEY, until REAL) WITHOUT ROWID;
INSERT INTO "strangers" VALUES('40cb4ee24f4c44a6f8ee3cca7b4d199e6eec71d400c43e47fd28424b4cf0b120',1800000300.0);
CREATE TABLE tags (
    upstream TEXT, repository TEXT, tag TEXT, digest TEXT, media_type TEXT, size INTEGER,
    checked REAL, retry REAL, PRIMARY KEY (upstream, repository, tag)) WITHOUT ROWID;
INSERT INTO "tags" VALUES('docker.io','library/alpine','latest','sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f','application/vnd.oci.image.index.v1+json',1638,1800000000.0,0.0);
INSERT INTO "tags" VALUES('ghcr.io','team/app','v1','sha256:3bfc269594ef649228e9a74bab00f042efc91d5acc6fbee31a382e80d42388fe','application/vnd.oci.image.manifest.v1+json',7,1800000000.0,1800000010.0);
CREATE TABLE verdicts (
    upstream TEXT, repository TEXT, credential TEXT, at REAL,
    PRIMARY KEY (upstream, repository, credential)) WITHOUT ROWID;
INSERT INTO "verdicts" VALUES('docker.io','library/alpine','',1800000000.0);
INSERT INTO "verdicts" VALUES('ghcr.io','team/app','40cb4ee24f4c44a6f8ee3cca7b4d199e6eec71d400c43e47fd28424b4cf0b120',1800000000.0);
CREATE INDEX held_used ON held (used);
CREATE INDEX tags_checked ON tags (checked);
COMMIT;
