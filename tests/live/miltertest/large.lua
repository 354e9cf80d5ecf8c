-- More body than is scanned: the message is accepted unscanned.
conn = mt.connect(address)
if conn == nil then error("nobody listens") end
if mt.conninfo(conn, "mail.sender.example", "203.0.113.9") ~= nil then error("connect") end
if mt.mailfrom(conn, "<a@sender.example>") ~= nil then error("mail") end
if mt.rcptto(conn, "<b@example.org>") ~= nil then error("rcpt") end
if mt.header(conn, "Subject", "large") ~= nil then error("header") end
if mt.bodyrandom(conn, 300000) ~= nil then error("body") end
if mt.eom(conn) ~= nil then error("end of message") end
if mt.getreply(conn) ~= SMFIR_ACCEPT then error("not accepted") end
if not mt.eom_check(conn, MT_HDRADD, "X-Spam-Status", "unscanned, reason=too large") then
	if not mt.eom_check(conn, MT_HDRADD, "X-Spam-Status", " unscanned, reason=too large") then error("not marked") end
end
mt.disconnect(conn)
