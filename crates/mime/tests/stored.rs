//! The stored form of metadata stays readable: it is in message rows for years.

use mime::{Metadata, scan};

const MESSAGE: &[u8] = b"From: Ann <ann@a.test>\r\nSubject: Re: hi\r\nMessage-Id: <1@a>\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n\
    Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx\r\n--b--\r\n";

/// What version 1 wrote for `MESSAGE`.
const STORED: &str = "\
    868af64652653a206869818443416e6ef643616e6e46612e74657374818443416e6ef643616e6e46612e7465\
    7374818443416e6ef643616e6e46612e74657374808080f6453c3140613e84858200186982186918b50a8369\
    6d756c746970617274656d69786564818268626f756e646172794162820181028582186e1870821870187500\
    83647465787465706c61696e808200808582187c189c82189c18ac0283676d65737361676566726663383232\
    8082028188f642696e8080808080808582189c18ab8218ab18ac0083647465787465706c61696e808200808b\
    f600626869f563616e6e606063416e6e60633140618018b5f56568656c6c6f";

fn from_hex(hex: &str) -> Vec<u8> {
    let octet =
        |pair: &[u8]| str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    hex.as_bytes().chunks(2).map(|pair| octet(pair).expect("two digits")).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn what_was_stored_is_read_and_written_alike() {
    let metadata = scan(MESSAGE);
    assert_eq!(to_hex(&minicbor::to_vec(&metadata).unwrap()), STORED);
    assert_eq!(minicbor::decode::<Metadata>(&from_hex(STORED)).unwrap(), metadata);
}

#[test]
fn a_field_of_a_later_version_is_passed_over() {
    let mut stored = from_hex(STORED);
    // Metadata is an array of six when it is no excerpt; a later version appends an eighth.
    assert_eq!(stored[0], 0x86);
    stored[0] = 0x88;
    stored.extend([0xf6, 0x2a]);
    assert_eq!(minicbor::decode::<Metadata>(&stored).unwrap(), scan(MESSAGE));
}
