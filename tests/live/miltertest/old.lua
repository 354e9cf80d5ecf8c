-- A mail server of version 2, without any of the later inventions: every step waits for its answer.
conn = mt.connect(address)
if conn == nil then error("nobody listens") end
if mt.negotiate(conn, 2, nil, SMFIP_NOEOH) ~= nil then error("negotiation") end
if mt.conninfo(conn, "mail.sender.example", "203.0.113.9") ~= nil then error("connect") end
if mt.getreply(conn) ~= SMFIR_CONTINUE then error("connect") end
if mt.helo(conn, "mail.sender.example") ~= nil then error("helo") end
if mt.getreply(conn) ~= SMFIR_CONTINUE then error("helo") end
if mt.mailfrom(conn, "<a@sender.example>") ~= nil then error("mail") end
if mt.getreply(conn) ~= SMFIR_CONTINUE then error("mail") end
if mt.rcptto(conn, "<b@example.org>") ~= nil then error("rcpt") end
if mt.getreply(conn) ~= SMFIR_CONTINUE then error("rcpt") end
if mt.header(conn, "Subject", "hello") ~= nil then error("header") end
if mt.getreply(conn) ~= SMFIR_CONTINUE then error("header") end
if mt.bodystring(conn, "hello\r\n") ~= nil then error("body") end
if mt.getreply(conn) ~= SMFIR_CONTINUE then error("body") end
if mt.eom(conn) ~= nil then error("end of message") end
if mt.getreply(conn) ~= SMFIR_ACCEPT then error("not accepted") end
-- miltertest offers the steps as the actions, too: adding fields is not among them, and must not be asked for.
if mt.eom_check(conn, MT_HDRADD) then error("a change that was not agreed on") end
mt.disconnect(conn)
