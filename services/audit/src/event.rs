use crate::{Priority, Value};

/// Declares the registry: variant, `MESSAGE_ID`, priority, message and fields, each exactly once.
macro_rules! registry {
    ($($(#[doc = $doc:literal])* $name:ident = $id:literal, $priority:ident, $message:literal => {
        $($(#[$field_doc:meta])* $field:ident: $kind:ty,)*
    })*) => {
        /// A security event. `MESSAGE_ID`s never change and are never given to another event; a field may be added, not
        /// renamed. In the journal a field is `CASEMATE_` and its name in capitals.
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub enum Event {
            $($(#[doc = $doc])* $name { $($(#[$field_doc])* $field: $kind,)* },)*
        }

        /// Every event as (name, `MESSAGE_ID`, message template), in the order of the registry.
        pub const REGISTRY: &[(&str, &str, &str)] = &[$((stringify!($name), $id, $message),)*];

        /// What each event means, in the order of the registry.
        pub(crate) const MEANINGS: &[&str] = &[$(concat!($($doc, "\n",)*),)*];

        impl Event {
            /// The event's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name),)* }
            }

            /// `MESSAGE_ID` of the journal: 128 bits, 32 hexadecimal digits.
            #[must_use]
            pub const fn message_id(&self) -> &'static str {
                match self { $(Self::$name { .. } => $id,)* }
            }

            /// Syslog priority.
            #[must_use]
            pub const fn priority(&self) -> Priority {
                match self { $(Self::$name { .. } => Priority::$priority,)* }
            }

            /// One line for a person.
            #[must_use]
            #[allow(unused_variables)] // not every field is in the sentence
            pub fn message(&self) -> String {
                match self { $(Self::$name { $($field,)* } => format!($message),)* }
            }

            /// The fields: name as in the source, value.
            #[must_use]
            pub fn fields(&self) -> Vec<(&'static str, Value)> {
                match self { $(Self::$name { $($field,)* } => vec![$((stringify!($field), Value::from($field.clone())),)*],)* }
            }
        }
    };
}

registry! {
    /// A daemon passed its own self-test, read this boot's report and serves.
    ServiceStarted = "9eabc7f445104570a959627e2cef2688", Notice, "service started in {mode} mode, FIPS module {module}" => {
        /// Mode.
        mode: String,
        /// Module.
        module: String,
    }
    /// A daemon ended because it was told to.
    ServiceStopped = "01a98f109d9d475bb454594617e4411f", Notice, "service stopped: {reason}" => {
        /// Reason.
        reason: String,
    }
    /// A daemon did not start or left service: nothing is served until a person acts.
    ServiceRefused = "55e0d3a43a994263b70ecd4e9fe71743", Critical, "service refused to run: {reason}" => {
        /// Reason.
        reason: String,
    }
    /// The power-on self-test passed.
    PostPassed = "9b11cadb1ea5405c967fa0f01953b80a", Notice, "power-on self-test passed: {tests} tests, {own_micros} us of our own" => {
        /// Run id.
        run_id: String,
        /// Tests.
        tests: usize,
        /// Own micros.
        own_micros: u64,
    }
    /// The power-on self-test failed: nothing else starts.
    PostFailed = "1c94404239264953822403209c203dd6", Critical, "power-on self-test failed at {test}: {reason}" => {
        /// Run id.
        run_id: String,
        /// Test.
        test: String,
        /// Reason.
        reason: String,
    }
    /// The key broker tested the token and serves.
    TokenReady = "7bab12bf81b343dda3d11608cabea0fb", Notice, "token {token} ({label}) answered its test" => {
        /// Token.
        token: String,
        /// Label.
        label: String,
        /// Firmware.
        firmware: String,
    }
    /// The token opens fewer sessions than the settings ask for: fewer signatures are made at the same time.
    TokenShortOfSessions = "c70e029d97ec4869bcb6237f90ba3f38", Warning, "token {token} opens {refused} sessions fewer than the settings ask for: signatures wait for each other" => {
        /// Token.
        token: String,
        /// How many fewer.
        refused: u64,
    }
    /// The token is not there: the broker waits.
    TokenAbsent = "b9d9018687ee46e98ae8d12e9a39eff2", Warning, "token {token} is absent: {detail}" => {
        /// Token.
        token: String,
        /// Detail.
        detail: String,
    }
    /// The token refused the PIN or is locked: a person must act.
    TokenRefused = "4954a645e1114540abd77a4000131c12", Critical, "token {token} refuses: {reason}" => {
        /// Token.
        token: String,
        /// Reason.
        reason: String,
    }
    /// An operator gave a token another PIN.
    PinChanged = "d6ad865b46994527ac10fd7df57aed51", Notice, "the PIN of token {token} was changed" => {
        /// Token.
        token: String,
        /// Place.
        place: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
    }
    /// A change of a token's PIN was refused or failed.
    PinNotChanged = "f5224f3e24d44087802c4b5332c3ec0b", Warning, "the PIN of token {place} was not changed: {reason}" => {
        /// Place.
        place: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
        /// Reason.
        reason: String,
    }
    /// The token gave a wrong answer: the broker is in the error state.
    TokenWrongAnswer = "fa4dc807aa014eabbbea8c1a86c485d7", Critical, "token {token} gave a wrong answer to {operation}: error state" => {
        /// Token.
        token: String,
        /// Operation.
        operation: String,
    }
    /// A key pair was made in the token.
    KeyGenerated = "8169e743d75b4dc1ad4e528fb679d408", Notice, "{role} key {fingerprint} ({algorithm}, backup {backup}) made in token {token}" => {
        /// Role.
        role: String,
        /// Algorithm.
        algorithm: String,
        /// Backup.
        backup: String,
        /// Token.
        token: String,
        /// Key id.
        key_id: String,
        /// Fingerprint.
        fingerprint: String,
        /// Uid.
        uid: u32,
    }
    /// An interrupted generation had left a whole key pair; it was tested and recorded.
    KeyAdopted = "d51ce8a7e4a7456ab4f1b78224204f70", Notice, "{role} key {fingerprint} of an interrupted generation recorded from token {token}" => {
        /// Role.
        role: String,
        /// Token.
        token: String,
        /// Key id.
        key_id: String,
        /// Fingerprint.
        fingerprint: String,
    }
    /// An interrupted generation had left half a key pair that nobody ever used; it was removed.
    KeyHalfRemoved = "8b0b3e54f7ce4ae39d411c27cb3c54e4", Warning, "half a {role} key of an interrupted generation removed from token {token}" => {
        /// Role.
        role: String,
        /// Token.
        token: String,
        /// Key id.
        key_id: String,
    }
    /// A recorded key is not on its token. Nothing is made in its place.
    KeyMissing = "6c4f335161f64d719bdf451c7bb51680", Critical, "{role} key {fingerprint} is recorded and not on token {token}: bring back the token or restore the key" => {
        /// Role.
        role: String,
        /// Token.
        token: String,
        /// Fingerprint.
        fingerprint: String,
    }
    /// `role-tokens.toml` puts a role on another token than the one that made its key. No key is copied and none is made.
    RoleMoveRefused = "9fc355800c345439d0616b9defd45f86", Critical, "{role} key {fingerprint} was made on token {token} ({place}) and role-tokens.toml puts the role on {other}: moving a role is a planned re-key" => {
        /// Role.
        role: String,
        /// Serial of the token that made the key.
        token: String,
        /// The token's name at that time.
        place: String,
        /// The token that is named for the role now.
        other: String,
        /// Fingerprint; empty where the making was interrupted.
        fingerprint: String,
    }
    /// A role's next key is about to be made beside the one that serves: a re-key began.
    RekeyBegun = "3562cff27aee42f59a38f1a32211ff15", Notice, "{role}: uid {uid} has a next key made in token {token} ({place}); key {fingerprint} of token {from} signs on until it is retired" => {
        /// Role.
        role: String,
        /// Fingerprint of the key that serves.
        fingerprint: String,
        /// Serial of its token.
        from: String,
        /// Serial of the token that makes the next key.
        token: String,
        /// That token's name.
        place: String,
        /// The next key's name in its token.
        key_id: String,
        /// Uid.
        uid: u32,
    }
    /// A key signs nothing any more: its next key has followed it. It stays in its token.
    KeyRetired = "9774ee83d854452cb4411ca9664bea13", Notice, "{role} key {fingerprint} of token {token} is retired and signs nothing any more; key {successor} of token {successor_token} is in its place" => {
        /// Role.
        role: String,
        /// Fingerprint.
        fingerprint: String,
        /// Serial of its token.
        token: String,
        /// Fingerprint of the key that followed it.
        successor: String,
        /// Serial of that key's token.
        successor_token: String,
        /// Uid.
        uid: u32,
    }
    /// A re-key did not begin or go on, and why.
    RekeyRefused = "68dd747986d544ad89c83dc56a473ab4", Warning, "re-key of {role} for uid {uid} refused: {reason}" => {
        /// Role.
        role: String,
        /// Uid.
        uid: u32,
        /// Reason.
        reason: String,
    }
    /// An operator chose which of the keys that phones know signs the lists from now on.
    ListSignerChosen = "f8829c3f4ff04b79b53145cd679e9fcb", Notice, "uid {uid} has {role} sign the trust lists" => {
        /// Role.
        role: String,
        /// Uid.
        uid: u32,
    }
    /// A key was not made because its token signs more slowly than the role needs, or cannot be measured.
    TokenTooSlow = "423b65f56456c02b484357d538436e9a", Error, "{role} key not made on token {token} ({place}): it signs {measured}, and the role needs {needed} signatures/s" => {
        /// Role.
        role: String,
        /// Token.
        token: String,
        /// The token's name.
        place: String,
        /// What the key was to be.
        algorithm: String,
        /// What was measured, or why nothing was.
        measured: String,
        /// The role's load, signatures a second.
        needed: u32,
        /// Uid.
        uid: u32,
    }
    /// The TPM had no token of ours and no key is on record there: one was made, with the PIN of its PIN file.
    TokenInitialized = "8d29b2657f5384ade8ddd1205e206266", Notice, "a token was made in the TPM at {place}" => {
        /// Where the TPM answers.
        place: String,
    }
    /// At the first boot the image's SoftHSM token was made, with a PIN that is sealed to the TPM and that nobody knows.
    TokenSetUp = "9aa7767bb8bc49398f1b04359eeaf4df", Notice, "token {label} was made at the first boot; its PIN is sealed to this machine's TPM" => {
        /// The token's label.
        label: String,
    }
    /// A power cut had emptied SoftHSM's own file of its token; the copy of the day on which the token was made took its place.
    TokenMended = "8e37193aceec4453ae01c75cede791b9", Warning, "{file} was empty after a power cut and was put back" => {
        /// The file.
        file: String,
    }
    /// A private key signed.
    KeyUsed = "07213cb775a24603a5fc6fd2deca3445", Info, "{role} signed {purpose} {object}" => {
        /// Role.
        role: String,
        /// Purpose.
        purpose: String,
        /// Scheme.
        scheme: String,
        /// Object.
        object: String,
        /// Digest.
        digest: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
    }
    /// A permitted signature was not made.
    KeyUseFailed = "8c2f8af05ba844178b79f2931a077da6", Warning, "{role} did not sign {purpose} {object}: {reason}" => {
        /// Role.
        role: String,
        /// Purpose.
        purpose: String,
        /// Object.
        object: String,
        /// Uid.
        uid: u32,
        /// Reason.
        reason: String,
    }
    /// A caller asked for a signature that it may not have.
    KeyUseRefused = "fd5c6f1e77044e8fa905da6efa40e72f", Warning, "uid {uid} may not sign {purpose} with {role}: {reason}" => {
        /// Role.
        role: String,
        /// Purpose.
        purpose: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
        /// Reason.
        reason: String,
    }
    /// A token's statement on a key was given to an operator, or that there is none.
    KeyAttested = "eecfec70417e4514aef7dc601aba24f8", Notice, "uid {uid} asked for a statement on the {role} key {fingerprint}: {outcome}" => {
        /// Role.
        role: String,
        /// Serial of the token.
        token: String,
        /// Fingerprint.
        fingerprint: String,
        /// The auditor's nonce, hexadecimal.
        nonce: String,
        /// `statement given`, or why the key is unproven.
        outcome: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
    }
    /// A token's attestation key was shown to an operator, or it has none.
    AttestationKeyShown = "fafc6140471240fc9f90c8a337b12f75", Notice, "uid {uid} asked for the attestation key of token {token}: {outcome}" => {
        /// Serial of the token.
        token: String,
        /// `given`, or why there is none.
        outcome: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
    }
    /// A token answered an auditor's challenge, or it has no attestation key.
    ChallengeAnswered = "10187f9d6130407aa5b90f6b6d42687b", Notice, "token {token} was given the challenge {digest} by uid {uid}: {outcome}" => {
        /// Serial of the token.
        token: String,
        /// SHA-256 of the challenge.
        digest: String,
        /// `answered`, or why there is no answer.
        outcome: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
    }
    /// A caller asked for an auditor's evidence that it may not have, or that the token did not give.
    AttestationRefused = "b795259a839e414abde2e5d7075e81a5", Warning, "uid {uid} was not given {evidence}: {reason}" => {
        /// What was asked for.
        evidence: String,
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
        /// Reason.
        reason: String,
    }
    /// A local process that no policy names spoke to a daemon's socket.
    CallerRefused = "c12fcb2625f14e7c81c57f33f41d8ddd", Warning, "uid {uid} pid {pid} refused: {reason}" => {
        /// Uid.
        uid: u32,
        /// Pid.
        pid: i32,
        /// Reason.
        reason: String,
    }
    /// An identity certificate was made and published.
    IdentityIssued = "ca66b99e58e44a83b14ea56fb0f6cc13", Notice, "{role} certificate {serial} issued for {subject} until {not_after}" => {
        /// Role.
        role: String,
        /// Serial.
        serial: String,
        /// Subject.
        subject: String,
        /// Not after.
        not_after: String,
        /// Fingerprint.
        fingerprint: String,
    }
    /// Every identity has a key and a certificate.
    Provisioned = "a6703b85840a461cada4992ba7fb5cad", Notice, "provisioned: {identities} identities, {made} made now" => {
        /// Identities.
        identities: usize,
        /// Made.
        made: usize,
        /// Uid.
        uid: u32,
    }
    /// Provisioning stopped; run it again.
    ProvisionFailed = "0e3141a627d74f19bdaec7ca16087a1d", Error, "provisioning stopped at {role}: {reason}" => {
        /// Role.
        role: String,
        /// Uid.
        uid: u32,
        /// Reason.
        reason: String,
    }
    /// A trust list was signed and published.
    TrustListBuilt = "baf7ad2071234f4e9082891cc8325a22", Notice, "{file} rebuilt: {certificates} records, {bytes} bytes, signed by {signer}, SHA-256 {digest}" => {
        /// File.
        file: String,
        /// The role whose key signed it.
        signer: String,
        /// Digest.
        digest: String,
        /// Certificates.
        certificates: usize,
        /// Bytes.
        bytes: usize,
    }
    /// The trust list is larger than phones can hold (guide 2882).
    TrustListTooLarge = "3438388072b04ee0b090965643e4792c", Warning, "{file} has {certificates} certificates and {bytes} bytes; phones fail above 39 or 65536" => {
        /// File.
        file: String,
        /// Certificates.
        certificates: usize,
        /// Bytes.
        bytes: usize,
    }
    /// A trust list could not be built; the published one stays.
    TrustListRefused = "419fb092590a4ebdbfb75b4d1146626c", Error, "{file} not rebuilt: {reason}" => {
        /// File.
        file: String,
        /// Reason.
        reason: String,
    }
    /// A phone's file was signed because its content changed.
    FileSigned = "68075a60d47a4383b2238459e6e3820d", Info, "{file} signed, SHA-256 {digest}" => {
        /// File.
        file: String,
        /// Digest.
        digest: String,
        /// Bytes.
        bytes: usize,
    }
    /// A request for a file was refused.
    FileRefused = "2ca72acfdec647c8a84c3cfec3513018", Warning, "{peer} refused {file} over {service}: {reason}" => {
        /// Service.
        service: String,
        /// Peer.
        peer: String,
        /// File.
        file: String,
        /// Reason.
        reason: String,
    }
    /// An operator gave a device a certificate operation.
    DeviceAdded = "b2fddee03591445283bd039aa37c5464", Notice, "{device}: install {key} by {mode}" => {
        /// Device.
        device: String,
        /// Mode.
        mode: String,
        /// Key.
        key: String,
        /// Uid.
        uid: u32,
    }
    /// Too many wrong authentication strings: the operation is locked until an operator sets it again.
    DeviceLocked = "2ede75419f8f472d87303afd73d9f338", Warning, "{device} locked after {failures} wrong authentication strings, the last from {peer}" => {
        /// Device.
        device: String,
        /// Failures.
        failures: u32,
        /// Peer.
        peer: String,
    }
    /// A null-string operation ran out unused.
    OperationExpired = "71d6bb9bfa034a648f1c880625f3131c", Notice, "{device}: operation {operation} expired unused" => {
        /// Device.
        device: String,
        /// Operation.
        operation: i64,
    }
    /// A phone opened a CAPF session.
    EnrolmentStarted = "f2d0c419e506466798c98d90ddea0897", Info, "{device} from {peer} began session {session}" => {
        /// Device.
        device: String,
        /// Peer.
        peer: String,
        /// Session.
        session: u32,
    }
    /// A CAPF session was ended with a refusal.
    EnrolmentRefused = "b6c7547b7c52461bac39cd1a20b0c200", Warning, "{device} from {peer} refused: {reason}" => {
        /// Device.
        device: String,
        /// Peer.
        peer: String,
        /// Session.
        session: u32,
        /// Reason.
        reason: String,
    }
    /// A phone asked whether it has to enrol, and has not.
    EnrolmentNotNeeded = "02a6f1bd2bb942db8cbdc45dbb6eb534", Info, "{device} from {peer} has nothing to do" => {
        /// Device.
        device: String,
        /// Peer.
        peer: String,
        /// Session.
        session: u32,
    }
    /// An LSC was signed and recorded before it was sent.
    CertificateIssued = "b3ab575dbed84f4ab4a2f4dd69cb194d", Notice, "LSC {serial} issued to {device} ({key}, by {mode})" => {
        /// Device.
        device: String,
        /// Serial.
        serial: String,
        /// Operation.
        operation: i64,
        /// Mode.
        mode: String,
        /// Key.
        key: String,
        /// Key digest.
        key_digest: String,
        /// Request digest.
        request_digest: String,
        /// Peer.
        peer: String,
    }
    /// The phone confirmed its LSC; the authentication string is consumed.
    CertificateDelivered = "80d5aeeb0a3a40feb0e0b886aed6e9fa", Notice, "{device} has LSC {serial}" => {
        /// Device.
        device: String,
        /// Serial.
        serial: String,
        /// Operation.
        operation: i64,
        /// Peer.
        peer: String,
    }
    /// TVS answered a phone's question.
    CertificateVerified = "1ae42e33321549a2989f9d1423a6b19d", Info, "{device} asked about {fingerprint}: valid {valid}, roles {roles}" => {
        /// Device.
        device: String,
        /// Peer.
        peer: String,
        /// Fingerprint.
        fingerprint: String,
        /// Valid.
        valid: bool,
        /// Roles.
        roles: String,
    }
    /// A peer broke a protocol.
    ProtocolRefused = "0731f227eec24629ac3a9498ccf324a4", Warning, "{peer} broke the protocol of {service}: {reason}" => {
        /// Service.
        service: String,
        /// Peer.
        peer: String,
        /// Reason.
        reason: String,
    }
    /// A TLS handshake failed.
    TlsRefused = "7d6bc3c1b3c64ef58aa43822b361b1c2", Warning, "TLS with {peer} on {service} failed: {reason}" => {
        /// Service.
        service: String,
        /// Peer.
        peer: String,
        /// Reason.
        reason: String,
    }
    /// A connection was turned away because a limit was reached.
    ConnectionRefused = "f61857e247dd4de2ad54d8314473d4d1", Warning, "{peer} turned away from {service}: {limit} ({suppressed} more not listed)" => {
        /// Service.
        service: String,
        /// Peer.
        peer: String,
        /// Limit.
        limit: String,
        /// Suppressed.
        suppressed: u64,
    }
    /// Anybody on the network can cause the event: more of it came than is listed, and was counted.
    EventsNotListed = "a59594065a614ccca1ff6a2616bb3d7e", Notice, "{service}: {suppressed} more of {event} not listed ({limit})" => {
        /// Service.
        service: String,
        /// Event.
        event: String,
        /// Limit.
        limit: String,
        /// Suppressed.
        suppressed: u64,
    }
    /// A peer was silent for too long.
    ConnectionTimedOut = "4165e19ca5c14e6ab663353fb0f3386d", Info, "{peer} was silent on {service}: {step}" => {
        /// Service.
        service: String,
        /// Peer.
        peer: String,
        /// Step.
        step: String,
    }
}
